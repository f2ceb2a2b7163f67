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

# The least compute capability that the CUDA kernels are written for.
_OLDEST_GPU = (8, 0)


class BackendWarning(UserWarning):
    """The plain PyTorch reference runs in place of a missing library, or decoding's loop in Python
    in place of the native one."""


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
        if "cpu" in _problems:  # the CPU library defines the ops
            _problems[device_type] = f"{path.name} needs the CPU library, and {_problems['cpu']}"
            continue
        try:
            torch.ops.load_library(path)
        except OSError as error:
            # torch wraps the loader's message, which is the one that says what is wrong.
            _problems[device_type] = f"{path.name} does not load: {error.__cause__ or error}"


def available(device_type: str = "cpu") -> bool:
    """Whether the C++ library for `device_type` ("cpu" or "cuda") is loaded."""
    return problem_of_library(device_type) is None


def problem_of_library(device_type: str) -> str | None:
    """Why the library does not run; None: it does."""
    load()
    if device_type not in _LIBRARIES:
        return "there is no library for this device type"
    return _problems.get(device_type)


def _callers_stacklevel() -> int:
    """The `stacklevel` that points a warning at the user's line: past this package and torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("seq2seq_ext", "torch")):
        level, frame = level + 1, frame.f_back
    return level


_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant_in_graphs(function: _Function) -> _Function:
    """Lets Dynamo call `function` while it traces, and take the result as constant: it can trace
    neither a warning nor torch.func's state, on which it guards of itself.

    torch.compiler.assume_constant_result does no more, but imports Dynamo.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@functools.cache
def _gpu_problem(index: int | None) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    if capability >= _OLDEST_GPU:
        return None
    needed, found = (".".join(map(str, version)) for version in (_OLDEST_GPU, capability))
    return f"the kernels need a GPU of compute capability {needed}, this one has {found}"


@constant_in_graphs
def problem_of(device: torch.device) -> str | None:
    """Why no library serves this device; None: one does."""
    problem = problem_of_library(device.type)
    return _gpu_problem(device.index) if problem is None and device.type == "cuda" else problem


@functools.cache
def _warn_of_fallback(device_type: str, problem: str) -> None:
    warnings.warn(
        f"seq2seq_ext runs its slow PyTorch reference for {device_type} tensors: {problem}. "
        "See seq2seq_ext.backend_info(); SEQ2SEQ_EXT_STRICT=1 makes this an error.",
        BackendWarning,
        stacklevel=_callers_stacklevel(),
    )


@functools.cache
def warn_of_python_loop(problem: str) -> None:
    """Once a process and reason."""
    warnings.warn(
        f"seq2seq_ext decodes by its slow loop in Python, not by the native one: {problem}. "
        "See seq2seq_ext.generation.native_reason().",
        BackendWarning,
        stacklevel=_callers_stacklevel(),
    )


def strict() -> bool:
    """Whether a missing library is an error instead of a warning."""
    return os.environ.get("SEQ2SEQ_EXT_STRICT", "0") not in ("", "0")


@constant_in_graphs
def use_library(device: torch.device) -> bool:
    """Whether an op on such tensors calls the library; else it runs the reference, after a warning.

    Raises:
        RuntimeError: the library is missing and SEQ2SEQ_EXT_STRICT is set.
    """
    problem = problem_of(device)
    if problem is None:
        return True
    if strict():
        raise RuntimeError(
            f"seq2seq_ext has no {device.type} library and SEQ2SEQ_EXT_STRICT is set: {problem}"
        )
    _warn_of_fallback(device.type, problem)
    return False


def _describe_gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "arch": 10 * properties.major + properties.minor,
        "sms": properties.multi_processor_count,
        "problem": problem_of(torch.device("cuda", index)),
    }


def backend_info() -> dict[str, Any]:
    """What runs, as plain data: versions, and each device type's library or why it is missing.

    `cpu["isa"]` is the instruction set the CPU kernels use: "avx512", "avx2" or "baseline".
    `cuda["devices"]` are the GPUs that torch sees; asking for them starts CUDA in this process.
    """
    from . import __version__

    def describe(device_type: str) -> dict[str, Any]:
        found = available(device_type)
        return {
            "available": found,
            "library": str(library_path(device_type)) if found else None,
            "problem": problem_of_library(device_type),
        }

    cpu = describe("cpu")
    cpu["isa"] = torch.ops.seq2seq_ext.cpu_isa() if cpu["available"] else None
    cpu["threads"] = torch.get_num_threads()
    cuda = describe("cuda")
    cuda["devices"] = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    return {
        "version": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "strict": strict(),
        "cpu": cpu,
        "cuda": cuda,
    }
