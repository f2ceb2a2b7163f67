# SPDX-License-Identifier: MIT
"""Loads the C++ libraries and says which of them run.

A library registers its operators with torch when it is loaded; nothing here knows which operators
those are. Where a library is missing the caller falls back to `reference.py`, never silently: one
warning a process and device type, or an error if the environment variable SEQ2SEQ_EXT_STRICT is set
to anything but 0.
"""

import functools
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

# Device type -> library beside this file (built by setup.py).
_LIBRARIES = {"cpu": "_C", "cuda": "_C_cuda"}

# Device type -> why its library does not run. No entry: it runs.
_problems: dict[str, str] = {}


class BackendWarning(UserWarning):
    """The plain PyTorch reference runs in place of a missing library."""


def library_path(device_type: str) -> Path:
    """Where the library of a device type is looked for."""
    return Path(__file__).with_name(_LIBRARIES[device_type] + ".abi3.so")


@functools.cache
def load() -> None:
    """Load every library there is; never raises. Later calls do nothing."""
    for device_type in _LIBRARIES:
        path = library_path(device_type)
        if not path.exists():
            _problems[device_type] = f"{path.name} is not built"
            continue
        try:
            torch.ops.load_library(path)
        except OSError as error:
            # torch wraps the loader's message, which is the one that says what is wrong.
            _problems[device_type] = f"{path.name} does not load: {error.__cause__ or error}"


def available(device_type: str = "cpu") -> bool:
    """Whether the C++ library for `device_type` ("cpu" or "cuda") is loaded."""
    load()
    return device_type in _LIBRARIES and device_type not in _problems


def _callers_stacklevel() -> int:
    """The `stacklevel` that points a warning at the user's line: past this package and torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("seq2seq_ext", "torch")):
        level, frame = level + 1, frame.f_back
    return level


@functools.cache
def _warn_of_fallback(device_type: str) -> None:
    problem = _problems.get(device_type, "there is no library for this device type")
    warnings.warn(
        f"seq2seq_ext runs its slow PyTorch reference for {device_type} tensors: {problem}. "
        "See seq2seq_ext.backend_info(); SEQ2SEQ_EXT_STRICT=1 makes this an error.",
        BackendWarning,
        stacklevel=_callers_stacklevel(),
    )


_Function = TypeVar("_Function", bound=Callable[..., bool])


def constant_in_graphs(function: _Function) -> _Function:
    """Lets Dynamo call `function` while it traces, and take the result as constant: it can trace
    neither a warning nor torch.func's state, on which it guards of itself.

    torch.compiler.assume_constant_result does no more, but imports Dynamo.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def strict() -> bool:
    """Whether a missing library is an error instead of a warning."""
    return os.environ.get("SEQ2SEQ_EXT_STRICT", "0") not in ("", "0")


@constant_in_graphs
def use_library(device_type: str) -> bool:
    """Whether an op on such tensors calls the library; else it runs the reference, after a warning.

    Raises:
        RuntimeError: the library is missing and SEQ2SEQ_EXT_STRICT is set.
    """
    if available(device_type):
        return True
    if strict():
        problem = _problems.get(device_type, "there is no library for this device type")
        raise RuntimeError(
            f"seq2seq_ext has no {device_type} library and SEQ2SEQ_EXT_STRICT is set: {problem}"
        )
    _warn_of_fallback(device_type)
    return False


def backend_info() -> dict[str, Any]:
    """What runs, as plain data: versions, and each device type's library or why it is missing.

    `cpu["isa"]` is the instruction set the CPU kernels use: "avx512", "avx2" or "baseline".
    """
    from . import __version__

    def describe(device_type: str) -> dict[str, Any]:
        found = available(device_type)
        return {
            "available": found,
            "library": str(library_path(device_type)) if found else None,
            "problem": _problems.get(device_type),
        }

    cpu = describe("cpu")
    cpu["isa"] = torch.ops.seq2seq_ext.cpu_isa() if cpu["available"] else None
    cpu["threads"] = torch.get_num_threads()
    return {
        "version": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "strict": strict(),
        "cpu": cpu,
        "cuda": describe("cuda"),
    }
