# SPDX-License-Identifier: MIT
"""Linear + cross-entropy: the function that `ops` offers, fake kernels and autograd of its ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _checks, reference
from ._double_backward import double_backward
from ._routing import cast, cast_dtypes, has_kernel, is_strict, needs_grad, without_autocast

OptionalTensor = Tensor | None

# On the CPU the forward leaves the backward as many logits as fit into this (bytes): of a small
# problem all, so that a quarter of the work is saved; of a large one next to none.
KEPT_BYTES = 32 << 20
KEPT_WORDS = 384  # of how many words at a time: csrc/kernels/common/params.h


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """``cross_entropy(hidden @ weight.T + bias, target)`` of torch.nn.functional, without the
    logits in memory.

    Differentiable twice in hidden, weight and bias. The forward keeps one number a row, and on the
    CPU at most 32 MiB of logits; the backward computes the others again, some words at a time.
    Positions to ignore cost nothing on the CPU. The second derivative goes through `reference`,
    logits and all.

    Args:
        hidden: (..., H).
        weight: (V, H).
        target: (...) int64, 0 to V - 1 or ignore_index.
        bias: (V,) or None.
        class_weight: (V,), hidden's dtype or float32 (float64 for float64), or None; it takes no
            gradient.
        ignore_index: targets with this value count for nothing.
        label_smoothing: e, 0 to 1: the target's log-probability counts with 1 - e, and each word's
            with e / V besides.
        reduction: "mean" over the class weights of the targets that count (without class weights:
            over those targets), "sum" or "none".

    Returns:
        The loss, float32 (float64 for float64): a number, or of target's shape for "none". Unlike
        torch's, the mean is 0, with zero gradients, where the weights it divides by add up to 0: a
        batch of padding alone. A row whose logits hold a NaN or +inf, or are all -inf, gives NaN.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
        IndexError: a target out of range (on the CPU; elsewhere the loss of such a row is NaN).
    """
    from . import ops  # which imports this module

    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
    }
    try:
        must_cast = ops.must_cast(hidden)
        if not must_cast or is_strict(hidden):
            _check(hidden, weight, target, bias, class_weight, label_smoothing, reduction)
        if must_cast:
            compute, _ = cast_dtypes(hidden)
            if class_weight is not None:
                class_weight = cast(class_weight, reference.state_dtype(compute))
            with without_autocast(hidden):
                return linear_cross_entropy(
                    cast(hidden, compute),
                    cast(weight, compute),
                    target,
                    cast(bias, compute),
                    class_weight=class_weight,
                    **options,
                )
        if has_kernel(hidden):
            rows, targets = hidden.reshape(target.numel(), hidden.shape[-1]), target.reshape(-1)
            backward = needs_grad(hidden, weight, [] if bias is None else [bias])
            kept = _words_to_keep(rows, weight) if backward and hidden.is_cpu else 0
            loss: Tensor = ops.kernels.linear_cross_entropy(
                rows, weight, targets, bias, class_weight, *options.values(), kept
            )[0]
            return loss.reshape(target.shape) if reduction == "none" else loss
        _check_targets(target, weight.shape[0], ignore_index)
        return reference.linear_cross_entropy(
            hidden, weight, target, bias, class_weight=class_weight, **options
        )
    except _checks.TYPE_ERRORS:
        _checks.types(hidden=hidden, weight=weight, target=target, bias=bias)
        _checks.types(class_weight=class_weight, ignore_index=ignore_index)
        _checks.types(label_smoothing=label_smoothing)
        raise


def _words_to_keep(hidden: Tensor, weight: Tensor) -> int:
    rows, words = hidden.shape[0], weight.shape[0]
    fitting = KEPT_BYTES // ((rows + 1) * reference.state_dtype(hidden.dtype).itemsize)
    return words if fitting >= words else fitting // KEPT_WORDS * KEPT_WORDS


# --------------------------------------------------------------------------------------------------
# Checks, for the paths that do not pass through C++ (csrc/bindings/cross_entropy_ops.cpp).


def _check(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: OptionalTensor,
    class_weight: OptionalTensor,
    label_smoothing: float,
    reduction: str,
) -> None:
    """Of all but the values of `target`."""
    if hidden.dim() == 0:
        _checks.fail("hidden", "1 or more dimensions (..., H)", "shape ()")
    _checks._floating("hidden", hidden)
    if hidden.shape[-1] < 1:
        _checks.fail("hidden", "H >= 1", f"shape {tuple(hidden.shape)}")
    _checks.like("weight", weight, hidden, "hidden")
    _checks._first("weight", weight, "V, H")
    words = weight.shape[0]
    _checks._shape("weight", weight, (words, hidden.shape[-1]))
    if target.dtype != torch.int64:
        _checks.fail("target", "dtype int64", str(target.dtype).removeprefix("torch."))
    _checks._device("target", target, hidden, "hidden")
    _checks._shape("target", target, hidden.shape[:-1])
    if bias is not None:
        _checks.like("bias", bias, hidden, "hidden")
        _checks._shape("bias", bias, (words,))
    if class_weight is not None:
        _checks._state("class_weight", class_weight, hidden, "hidden")
        _checks._shape("class_weight", class_weight, (words,))
        if class_weight.requires_grad and torch.is_grad_enabled():
            _checks.fail("class_weight", "no gradient to be needed", "requires_grad=True")
    if not 0 <= label_smoothing <= 1:
        _checks.fail("label_smoothing", "0 to 1", label_smoothing)
    if reduction not in ("mean", "sum", "none"):
        _checks.fail("reduction", "'mean', 'sum' or 'none'", repr(reduction))


def _check_targets(target: Tensor, words: int, ignore_index: int) -> None:
    if not _checks._readable(target):
        return
    wrong = target[((target < 0) | (target >= words)) & (target != ignore_index)]
    if wrong.numel():
        raise IndexError(
            f"target: expected 0 to {words - 1}, or ignore_index {ignore_index}, "
            f"got {int(wrong[0])}"
        )


# --------------------------------------------------------------------------------------------------
# Fake kernels. Here hidden is (N, H) and target (N,).


def _fake_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: OptionalTensor,
    class_weight: OptionalTensor,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    kept: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(hidden, weight, target, bias, class_weight, label_smoothing, reduction)
    rows = (hidden.shape[0],)
    state = reference.state_dtype(hidden.dtype)
    return (
        hidden.new_empty(rows if reduction == "none" else (), dtype=state),
        hidden.new_empty(rows, dtype=state),
        hidden.new_empty((2,), dtype=state),
        hidden.new_empty((*rows, kept), dtype=state),
    )


def _fake_grads(
    d_loss: Tensor, hidden: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    wanted: int = rest[-1]
    return (
        hidden.new_empty(hidden.shape if wanted & 1 else (0,)),
        hidden.new_empty(weight.shape if wanted & 2 else (0,)),
        hidden.new_empty(weight.shape[:1] if wanted & 4 else (0,)),
    )


FAKES: dict[str, Callable[..., Any]] = {
    "linear_cross_entropy": _fake_loss,
    "linear_cross_entropy_backward": _fake_grads,
}


# --------------------------------------------------------------------------------------------------
# Autograd.


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    hidden, weight, target, bias, class_weight, *ctx.options, _kept = inputs
    _, lse, sums, logits = output
    ctx.save_for_backward(hidden, weight, target, bias, class_weight, lse, sums, logits)
    ctx.set_materialize_grads(False)


def _backward(ops: Any, ctx: Any, d_loss: OptionalTensor, *_: OptionalTensor) -> tuple[Any, ...]:
    if d_loss is None:
        return (None,) * 9
    need_hidden, need_weight, _target, need_bias, *_rest = ctx.needs_input_grad
    wanted = need_hidden | need_weight << 1 | need_bias << 2
    d_hidden, d_weight, d_bias = ops.linear_cross_entropy_backward(
        d_loss, *ctx.saved_tensors, *ctx.options, wanted
    )
    return (
        d_hidden if need_hidden else None,
        d_weight if need_weight else None,
        None,
        d_bias if need_bias else None,
        *(None,) * 5,
    )


AUTOGRAD: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "linear_cross_entropy": (_backward, _setup),
}


def _setup_double(ctx: Any, inputs: Any, output: Any) -> None:
    d_loss, hidden, weight, target, bias, class_weight, *_saved = inputs[:9]
    *options, ctx.wanted = inputs[9:]
    ctx.options = dict(zip(("ignore_index", "label_smoothing", "reduction"), options, strict=True))
    ctx.save_for_backward(d_loss, hidden, weight, target, bias, class_weight)
    ctx.set_materialize_grads(False)


def _backward_double(
    ctx: Any, dd_hidden: OptionalTensor, dd_weight: OptionalTensor, dd_bias: OptionalTensor
) -> tuple[Any, ...]:
    d_loss, hidden, weight, target, bias, class_weight = ctx.saved_tensors

    def forward(hidden: Tensor, weight: Tensor, bias: OptionalTensor = None) -> tuple[Tensor]:
        loss = reference.linear_cross_entropy(
            hidden, weight, target, bias, class_weight=class_weight, **ctx.options
        )
        return (loss,)

    inputs = (hidden, weight) if bias is None else (hidden, weight, bias)
    (g,), (x, w, *b) = double_backward(
        forward,
        (d_loss,),
        inputs,
        range(len(inputs)),
        ctx.wanted,
        (dd_hidden, dd_weight, dd_bias),
    )
    return (g, x, w, None, b[0] if b else None, *(None,) * 8)


def register_double_backward(namespace: str) -> None:
    torch.library.register_autograd(
        f"{namespace}::linear_cross_entropy_backward", _backward_double, setup_context=_setup_double
    )
