# SPDX-License-Identifier: MIT
"""How `ops.py` finds what to run: kernel or reference, with or without a cast.

A decoder asks once a step: the plain path is a few attribute reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _backend, reference

HAVE_CPU = _backend.available("cpu")
HAVE_CUDA = _backend.available("cuda")

_transform = torch._C._functorch.peek_interpreter_stack


@_backend.constant_in_graphs
def transformed() -> bool:
    """Whether a torch.func transform (grad, jvp, vmap, ...) or forward-mode AD is at work."""
    return _transform() is not None or forward_ad._current_level >= 0


def has_kernel(x: Tensor) -> bool:
    if (HAVE_CPU and (x.is_cpu or x.is_meta)) or (
        HAVE_CUDA and x.is_cuda and _backend.problem_of(x.device) is None
    ):
        # The kernels know plain backward only; the reference can be transformed in every way.
        return not transformed()
    return _backend.use_library(x.device)


def needs_grad(x: Tensor, h: Tensor, weights: Sequence[Tensor], c: Tensor | None = None) -> bool:
    if not torch.is_grad_enabled():
        return False
    if x.requires_grad or h.requires_grad or (c is not None and c.requires_grad):
        return True
    return any(w.requires_grad for w in weights)


def _autocasts(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def must_cast(x: Tensor) -> bool:
    """Whether autocast is on, or x is float16 on the CPU."""
    return _autocasts(x) or (x.dtype == torch.float16 and x.is_cpu)


def is_strict(x: Tensor) -> bool:
    """Whether no autocast mends a mix of dtypes: then it must be seen before it is cast away."""
    return not torch.is_autocast_enabled(x.device.type)


_CASTABLE = (torch.float32, torch.bfloat16, torch.float16)


def cast_dtypes(x: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes to compute in and to return."""
    device = x.device.type
    result = x.dtype
    # As in torch's own autocast, float64 and integers are left alone.
    if _autocasts(x) and result in _CASTABLE:
        result = torch.get_autocast_dtype(device)
    compute = torch.float32 if result == torch.float16 and device == "cpu" else result
    return compute, result


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor, or each of a list of them, cast; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype in _CASTABLE else value
    return [cast(v, dtype) for v in value] if isinstance(value, (list, tuple)) else value


def without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def run_cast(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`function` on cast arguments, the first of them x; the results in the dtype of x, or that of
    autocast.

    The cell state, of an LSTM's (x, h, c, weights), is taken in that dtype and in the state dtype,
    anything else becoming the latter; it comes back in the dtype it was given in.
    """
    x = args[0]
    compute, result = cast_dtypes(x)
    given = [cast(a, compute) for a in args]
    is_lstm = len(args) == 4
    if is_lstm and args[2].dtype != compute:
        given[2] = cast(args[2], reference.state_dtype(compute))
    with without_autocast(x):
        outputs = function(*given, **{n: cast(o, compute) for n, o in options.items()})
    if isinstance(outputs, Tensor):
        return outputs.to(result)
    dtypes = [result] * len(outputs)
    if is_lstm:
        dtypes[-1] = args[2].dtype
    return tuple(o.to(dtype) for o, dtype in zip(outputs, dtypes, strict=True))
