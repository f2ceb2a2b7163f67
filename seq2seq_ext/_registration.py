# SPDX-License-Identifier: MIT
"""Fake kernels (shapes, for torch.compile and export) and autograd of the ops of
csrc/bindings/library.cpp.

`register` is called once a library is loaded; `ops.py` calls the ops that it returns. The order of
each op's arguments is that of its schema.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _checks, _cross_entropy, _double_backward, reference

OptionalTensor = Tensor | None

# --------------------------------------------------------------------------------------------------
# Fake kernels: the checks, except of values, and the shapes of the results.


def _sequence_results(
    cell: str,
    x: Tensor,
    h0: Tensor,
    c0: OptionalTensor,
    weights: Sequence[Tensor],
    lengths: OptionalTensor,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    hidden = _checks.sequence(cell, x, h0, c0, weights, lengths, reverse)
    steps, batch, _ = x.shape
    directions, _, outputs = h0.shape
    y = x.new_empty(steps, batch, directions * outputs)
    h_n = x.new_empty(directions, batch, outputs)
    width = _checks.NUM_SAVED[cell] * hidden
    gates = x.new_empty((directions, steps * batch, width) if save else (0,))
    if c0 is None:
        return y, h_n, gates
    cells = x.new_empty(
        (directions, steps * batch, hidden) if save else (0,),
        dtype=reference.state_dtype(x.dtype),
    )
    return y, h_n, torch.empty_like(c0, memory_format=torch.contiguous_format), gates, cells


def _fake_grads(
    x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], wanted: int
) -> tuple[Any, ...]:
    def grad(tensor: Tensor, bit: int) -> Tensor:
        return tensor.new_empty(tensor.shape) if wanted >> bit & 1 else x.new_empty(0)

    return (
        grad(x, 0),
        *[grad(state, 1 + n) for n, state in enumerate(states)],
        [grad(weight, 3 + n) for n, weight in enumerate(weights)],
    )


def _step_results(
    cell: str, x: Tensor, h: Tensor, c: OptionalTensor, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    _checks.step(cell, x, h, c, weights)
    return tuple(s.new_empty(s.shape) for s in (h, c) if s is not None)


def _attention_results(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: OptionalTensor,
    additive: bool,
    scale: float,
    w_query: OptionalTensor,
    v: OptionalTensor,
) -> tuple[Tensor, Tensor]:
    _checks.attention(query, keys, values, lengths, additive, w_query, v)
    batch, source, _ = keys.shape
    return query.new_empty(batch, values.shape[2]), query.new_empty(batch, source)


def _vocab_results(
    hidden: Tensor,
    weight: Tensor,
    bias: OptionalTensor,
    k: int,
    banned: OptionalTensor = None,
    temperature: float = 1.0,
    panels: OptionalTensor = None,
) -> tuple[Tensor, Tensor]:
    _checks.vocab(hidden, weight, bias, k, banned)
    batch = hidden.shape[0]
    log_probs = hidden.new_empty(batch, k, dtype=reference.state_dtype(hidden.dtype))
    return log_probs, hidden.new_empty(batch, k, dtype=torch.int64)


def _draw_results(
    hidden: Tensor,
    weight: Tensor,
    bias: OptionalTensor,
    seed: Tensor,
    step: Tensor,
    rows: OptionalTensor = None,
    banned: OptionalTensor = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    _checks.vocab(hidden, weight, bias, 1, banned)
    _checks.draw(hidden, seed, step, rows)
    batch = hidden.shape[0]
    log_probs = hidden.new_empty(batch, dtype=reference.state_dtype(hidden.dtype))
    return log_probs, hidden.new_empty(batch, dtype=torch.int64)


_FAKES: dict[str, Callable[..., Any]] = {
    "lstm_sequence": lambda x, h0, c0, weights, lengths, reverse, save: _sequence_results(
        "lstm", x, h0, c0, weights, lengths, reverse, save
    ),
    "gru_sequence": lambda x, h0, weights, lengths, reverse, save: _sequence_results(
        "gru", x, h0, None, weights, lengths, reverse, save
    ),
    "rnn_sequence": lambda x, h0, weights, lengths, relu, reverse, save: _sequence_results(
        "rnn", x, h0, None, weights, lengths, reverse, save
    ),
    "lstm_sequence_backward": lambda dy, dh_n, dc_n, x, h0, c0, weights, *rest: _fake_grads(
        x, (h0, c0), weights, rest[-1]
    ),
    "gru_sequence_backward": lambda dy, dh_n, x, h0, weights, *rest: _fake_grads(
        x, (h0,), weights, rest[-1]
    ),
    "rnn_sequence_backward": lambda dy, dh_n, x, h0, weights, *rest: _fake_grads(
        x, (h0,), weights, rest[-1]
    ),
    "lstm_step": lambda x, h, c, weights: _step_results("lstm", x, h, c, weights),
    "gru_step": lambda x, h, weights: _step_results("gru", x, h, None, weights)[0],
    "rnn_step": lambda x, h, weights, relu: _step_results("rnn", x, h, None, weights)[0],
    "attention_step": _attention_results,
    "vocab_pick": _vocab_results,
    "vocab_sample": _draw_results,
    **_cross_entropy.FAKES,
}


# --------------------------------------------------------------------------------------------------
# Autograd of the sequence ops. The forward's results hold what the backward op needs; the backward
# op is itself differentiable, by way of the reference.


def _wanted(x: bool, states: Sequence[bool], weights: Sequence[bool]) -> int:
    mask = int(x)
    for bit, needed in enumerate(states, start=1):
        mask |= needed << bit
    for bit, needed in enumerate(weights, start=3):
        mask |= needed << bit
    return mask


def _only(wanted: int, bit: int, grad: Tensor) -> OptionalTensor:
    return grad if wanted >> bit & 1 else None


def _must_save(save: bool) -> None:
    if not save:
        _checks.fail("save", "True, as a gradient is needed", "False")


def _setup_lstm(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, c0, weights, lengths, ctx.reverse, save = inputs
    _must_save(save)
    y, _, _, gates, cells = output
    ctx.save_for_backward(x, h0, c0, lengths, y, gates, cells, *weights)
    ctx.set_materialize_grads(False)


def _backward_lstm(
    ops: Any,
    ctx: Any,
    dy: OptionalTensor,
    dh_n: OptionalTensor,
    dc_n: OptionalTensor,
    *_: OptionalTensor,
) -> tuple[Any, ...]:
    x, h0, c0, lengths, y, gates, cells, *weights = ctx.saved_tensors
    need_x, need_h0, need_c0, need_weights, *_rest = ctx.needs_input_grad
    wanted = _wanted(need_x, (need_h0, need_c0), need_weights)
    dx, dh0, dc0, dweights = ops.lstm_sequence_backward(
        dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, ctx.reverse, wanted
    )
    return (
        _only(wanted, 0, dx),
        _only(wanted, 1, dh0),
        _only(wanted, 2, dc0),
        [_only(wanted, 3 + n, dw) for n, dw in enumerate(dweights)],
        None,
        None,
        None,
    )


def _setup_gru(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, weights, lengths, ctx.reverse, save = inputs
    _must_save(save)
    y, _, gates = output
    ctx.save_for_backward(x, h0, lengths, y, gates, *weights)
    ctx.set_materialize_grads(False)


def _setup_rnn(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, weights, lengths, ctx.relu, reverse, save = inputs
    _setup_gru(ctx, (x, h0, weights, lengths, reverse, save), output)


def _single_state_grads(ctx: Any, call: Callable[..., Any]) -> tuple[Any, ...]:
    """The gradients of (x, h0, weights, lengths). `call(x, h0, weights, lengths, y, gates, wanted)`
    runs the op."""
    x, h0, lengths, y, gates, *weights = ctx.saved_tensors
    need_x, need_h0, need_weights, *_rest = ctx.needs_input_grad
    wanted = _wanted(need_x, (need_h0,), need_weights)
    dx, dh0, dweights = call(x, h0, weights, lengths, y, gates, wanted)
    return (
        _only(wanted, 0, dx),
        _only(wanted, 1, dh0),
        [_only(wanted, 3 + n, dw) for n, dw in enumerate(dweights)],
        None,
    )


def _backward_gru(
    ops: Any, ctx: Any, dy: OptionalTensor, dh_n: OptionalTensor, *_: OptionalTensor
) -> tuple[Any, ...]:
    def call(*args: Any) -> Any:
        x, h0, weights, lengths, y, gates, wanted = args
        return ops.gru_sequence_backward(
            dy, dh_n, x, h0, weights, lengths, y, gates, ctx.reverse, wanted
        )

    return (*_single_state_grads(ctx, call), None, None)


def _backward_rnn(
    ops: Any, ctx: Any, dy: OptionalTensor, dh_n: OptionalTensor, *_: OptionalTensor
) -> tuple[Any, ...]:
    def call(*args: Any) -> Any:
        x, h0, weights, lengths, y, gates, wanted = args
        return ops.rnn_sequence_backward(
            dy, dh_n, x, h0, weights, lengths, y, gates, ctx.relu, ctx.reverse, wanted
        )

    return (*_single_state_grads(ctx, call), None, None, None)


_AUTOGRAD: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "lstm_sequence": (_backward_lstm, _setup_lstm),
    "gru_sequence": (_backward_gru, _setup_gru),
    "rnn_sequence": (_backward_rnn, _setup_rnn),
    **_cross_entropy.AUTOGRAD,
}


# --------------------------------------------------------------------------------------------------


def register(namespace: str) -> Any:
    """Make the ops of `torch.ops.<namespace>` whole, once a process, and return them by name.

    A namespace other than seq2seq_ext is a second build of the same bindings, as tests load one.
    """
    ops = types.ModuleType(namespace)  # of all namespaces the one that Dynamo knows best
    for name, fake in _FAKES.items():
        setattr(ops, name, getattr(getattr(torch.ops, namespace), name).default)
        torch.library.register_fake(f"{namespace}::{name}", fake)
    ops.decode = getattr(torch.ops, namespace).decode.default  # type: ignore[attr-defined]
    for name, (backward, setup) in _AUTOGRAD.items():
        torch.library.register_autograd(
            f"{namespace}::{name}", functools.partial(backward, ops), setup_context=setup
        )
    _double_backward.register(namespace)
    _cross_entropy.register_double_backward(namespace)
    return ops
