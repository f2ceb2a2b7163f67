# SPDX-License-Identifier: MIT
"""The second derivative of the sequence ops: autograd of their backward ops.

Rare, so it is not worth kernels: run the reference and let autograd differentiate it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import reference

OptionalTensor = Tensor | None


def _stand_in(tensor: Tensor, keep_history: bool) -> Tensor:
    """What to differentiate by; attached to the maker of `tensor` only if a third derivative may
    be asked for."""
    if keep_history and tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def double_backward(
    forward: Callable[..., tuple[Tensor, ...]],
    grad_outputs: Sequence[OptionalTensor],
    inputs: Sequence[Tensor],
    bits: Sequence[int],
    wanted: int,
    second: Sequence[OptionalTensor],
) -> tuple[list[OptionalTensor], list[OptionalTensor]]:
    """Gradients with respect to the first backward's `grad_outputs` and `inputs`.

    `forward(*inputs)` is the reference, `second` the gradients of what the backward op returned for
    the inputs whose `bits` are in `wanted`.
    """
    keep_history = torch.is_grad_enabled()
    with torch.enable_grad():
        gs = [None if g is None else _stand_in(g, keep_history) for g in grad_outputs]
        xs = [_stand_in(t, keep_history) for t in inputs]
        results = forward(*xs)
        pairs = [(r, g) for r, g in zip(results, gs, strict=True) if g is not None]
        chosen = [n for n, bit in enumerate(bits) if wanted >> bit & 1 and second[n] is not None]
        if not pairs or not chosen:
            return [None] * len(gs), [None] * len(xs)
        first = torch.autograd.grad(
            [r for r, _ in pairs],
            [xs[n] for n in chosen],
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
        used = [(f, second[n]) for f, n in zip(first, chosen, strict=True) if f is not None]
        targets = [t for t in (*gs, *xs) if t is not None]
        found = iter(
            torch.autograd.grad(
                [f for f, _ in used],
                targets,
                [s for _, s in used],
                create_graph=keep_history,
                allow_unused=True,
            )
            if used
            else [None] * len(targets)
        )
    return [None if g is None else next(found) for g in gs], [next(found) for _ in xs]


def _setup_lstm_double(ctx: Any, inputs: Any, output: Any) -> None:
    dy, dh_n, dc_n, x, h0, c0, weights, lengths, _y, _g, _c, ctx.reverse, ctx.wanted = inputs
    ctx.save_for_backward(dy, dh_n, dc_n, x, h0, c0, lengths, *weights)
    ctx.set_materialize_grads(False)


def _backward_lstm_double(
    ctx: Any, ddx: OptionalTensor, ddh0: OptionalTensor, ddc0: OptionalTensor, ddweights: Any
) -> tuple[Any, ...]:
    dy, dh_n, dc_n, x, h0, c0, lengths, *weights = ctx.saved_tensors

    def forward(x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return reference.lstm_sequence(x, h0, c0, weights, lengths=lengths, reverse=ctx.reverse)

    gs, xs = double_backward(
        forward,
        (dy, dh_n, dc_n),
        (x, h0, c0, *weights),
        range(3 + len(weights)),
        ctx.wanted,
        (ddx, ddh0, ddc0, *ddweights),
    )
    return (*gs, *xs[:3], xs[3:], None, None, None, None, None, None)


def _setup_gru_double(ctx: Any, inputs: Any, output: Any) -> None:
    dy, dh_n, x, h0, weights, lengths, _y, _g, ctx.reverse, ctx.wanted = inputs
    ctx.save_for_backward(dy, dh_n, x, h0, lengths, *weights)
    ctx.set_materialize_grads(False)


def _setup_rnn_double(ctx: Any, inputs: Any, output: Any) -> None:
    *first, relu, reverse, wanted = inputs
    ctx.nonlinearity = "relu" if relu else "tanh"
    _setup_gru_double(ctx, (*first, reverse, wanted), output)


def _single_state_double(
    ctx: Any,
    ddx: OptionalTensor,
    ddh0: OptionalTensor,
    ddweights: Any,
    run: Callable[..., tuple[Tensor, ...]],
    **options: Any,
) -> tuple[Any, ...]:
    dy, dh_n, x, h0, lengths, *weights = ctx.saved_tensors

    def forward(x: Tensor, h0: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return run(x, h0, weights, lengths=lengths, reverse=ctx.reverse, **options)

    gs, xs = double_backward(
        forward,
        (dy, dh_n),
        (x, h0, *weights),
        (0, 1, *range(3, 3 + len(weights))),
        ctx.wanted,
        (ddx, ddh0, *ddweights),
    )
    return (*gs, *xs[:2], xs[2:], None, None, None, None, None)


def _backward_gru_double(
    ctx: Any, ddx: OptionalTensor, ddh0: OptionalTensor, ddweights: Any
) -> tuple[Any, ...]:
    return _single_state_double(ctx, ddx, ddh0, ddweights, reference.gru_sequence)


def _backward_rnn_double(
    ctx: Any, ddx: OptionalTensor, ddh0: OptionalTensor, ddweights: Any
) -> tuple[Any, ...]:
    grads = _single_state_double(
        ctx, ddx, ddh0, ddweights, reference.rnn_sequence, nonlinearity=ctx.nonlinearity
    )
    return (*grads, None)


def register(namespace: str) -> None:
    for name, backward, setup in (
        ("lstm_sequence_backward", _backward_lstm_double, _setup_lstm_double),
        ("gru_sequence_backward", _backward_gru_double, _setup_gru_double),
        ("rnn_sequence_backward", _backward_rnn_double, _setup_rnn_double),
    ):
        torch.library.register_autograd(f"{namespace}::{name}", backward, setup_context=setup)
