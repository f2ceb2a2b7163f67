# SPDX-License-Identifier: MIT
"""The equations of every operator in plain PyTorch, written to be read.

Each function has the signature and the meaning of its namesake in :mod:`seq2seq_ext.ops`. It is the
oracle of the tests, the fallback where no compiled library is found, and the baseline of the
benchmarks. Everything here can be differentiated any number of times and works for every floating
dtype.

Legend: T time, B batch, I input, H hidden, P output of a step (= H, or the LSTM's projection), G
    gates, D directions, S source length, A attention size, C context size, V vocabulary, K picks a
    row.

16-bit inputs are computed as the kernels compute them: products and gates in float32, the LSTM's
cell state kept in float32 over the whole sequence, and h rounded to its 16-bit type after each
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ._philox import gumbel

__all__ = [
    "attention_step",
    "gru_sequence",
    "gru_step",
    "linear_cross_entropy",
    "lstm_sequence",
    "lstm_step",
    "rnn_sequence",
    "rnn_step",
    "vocab_pick",
    "vocab_sample",
]


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums, gates and cell states are kept: float64 for float64, float32 for all
    others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Weights(NamedTuple):
    """One direction's parameters, in the order of ``torch.nn`` (gates i, f, g, o or r, z, n)."""

    w_ih: Tensor  # (G*H, I)
    w_hh: Tensor  # (G*H, P)
    b_ih: Tensor | None = None  # (G*H)
    b_hh: Tensor | None = None  # (G*H)
    w_hr: Tensor | None = None  # (P, H)

    @classmethod
    def of(cls, flat: Sequence[Tensor], dtype: torch.dtype) -> Weights:
        """From 2 (no bias), 3 (no bias, projection), 4 or 5 tensors, converted to `dtype`."""
        converted = [w.to(dtype) for w in flat]
        if len(converted) == 3:
            return cls(converted[0], converted[1], w_hr=converted[2])
        return cls(*converted)


# --------------------------------------------------------------------------------------------------
# The cells. xw is W_ih x + b_ih, computed for all steps at once by the caller; h and c are states
# of one step.


def lstm_cell(xw: Tensor, h: Tensor, c: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    i, f, g, o = (xw + linear(h, weights.w_hh, weights.b_hh)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if weights.w_hr is None else linear(h, weights.w_hr)), c


def gru_cell(xw: Tensor, h: Tensor, weights: Weights) -> Tensor:
    xr, xz, xn = xw.chunk(3, dim=-1)
    hr, hz, hn = linear(h, weights.w_hh, weights.b_hh).chunk(3, dim=-1)
    r = torch.sigmoid(xr + hr)
    z = torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)  # the reset gate acts after the recurrent product
    return (1 - z) * n + z * h


def rnn_cell(xw: Tensor, h: Tensor, weights: Weights, nonlinearity: str) -> Tensor:
    pre = xw + linear(h, weights.w_hh, weights.b_hh)
    return torch.tanh(pre) if nonlinearity == "tanh" else torch.relu(pre)


# --------------------------------------------------------------------------------------------------
# Sequences.

State = tuple[Tensor, ...]  # (h,) or (h, c)


def _run_direction(
    x: Tensor,
    state: State,
    flat_weights: Sequence[Tensor],
    step: Callable[[Tensor, State, Weights], State],
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """One direction over all steps: y (T, B, P) and the state after each row's last valid step."""
    num_steps = x.shape[0]
    weights = Weights.of(flat_weights, state_dtype(x.dtype))
    xw = linear(x.to(weights.w_ih.dtype), weights.w_ih, weights.b_ih)
    ys: list[Tensor] = [xw] * num_steps
    for t in reversed(range(num_steps)) if reverse else range(num_steps):
        new = step(xw[t], state, weights)
        new = (new[0].to(x.dtype).to(new[0].dtype), *new[1:])  # h is stored in x's type
        if lengths is None:
            state, ys[t] = new, new[0]
        else:
            valid = (t < lengths)[:, None]
            state = tuple(torch.where(valid, n, old) for n, old in zip(new, state, strict=True))
            ys[t] = torch.where(valid, new[0], 0)
    return torch.stack(ys).to(x.dtype), state


def _run(
    x: Tensor,
    states: State,
    weights: Sequence[Tensor],
    step: Callable[[Tensor, State, Weights], State],
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """All directions. `states`: h0 (D, B, P) and, for the LSTM, c0 (D, B, H)."""
    directions = states[0].shape[0]
    per_direction = len(weights) // directions
    wide = state_dtype(x.dtype)
    if lengths is not None:  # what stands past a row's end must not matter, not even if it is NaN
        steps = torch.arange(x.shape[0], device=x.device)
        x = torch.where((steps[:, None] < lengths)[..., None], x, 0)
    ys, finals = [], []
    for d in range(directions):
        y, final = _run_direction(
            x,
            tuple(s[d].to(wide) for s in states),
            weights[d * per_direction : (d + 1) * per_direction],
            step,
            lengths,
            reverse or d == 1,
        )
        ys.append(y)
        finals.append(final)
    stacked = tuple(
        torch.stack(parts).to(given.dtype)
        for parts, given in zip(zip(*finals, strict=True), states, strict=True)
    )
    return torch.cat(ys, dim=-1), stacked


def lstm_sequence(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.lstm_sequence`."""

    def step(xw: Tensor, state: State, w: Weights) -> State:
        return lstm_cell(xw, state[0], state[1], w)

    y, (h_n, c_n) = _run(x, (h0, c0), weights, step, lengths, reverse)
    return y, h_n, c_n


def gru_sequence(
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.gru_sequence`."""

    def step(xw: Tensor, state: State, w: Weights) -> State:
        return (gru_cell(xw, state[0], w),)

    y, (h_n,) = _run(x, (h0,), weights, step, lengths, reverse)
    return y, h_n


def rnn_sequence(
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor],
    *,
    nonlinearity: str = "tanh",
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.rnn_sequence`."""

    def step(xw: Tensor, state: State, w: Weights) -> State:
        return (rnn_cell(xw, state[0], w, nonlinearity),)

    y, (h_n,) = _run(x, (h0,), weights, step, lengths, reverse)
    return y, h_n


# --------------------------------------------------------------------------------------------------
# Steps: a sequence of one.


def lstm_step(x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.lstm_step`."""
    _, h_n, c_n = lstm_sequence(x[None], h[None], c[None], weights)
    return h_n[0], c_n[0]


def gru_step(x: Tensor, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """See :func:`seq2seq_ext.ops.gru_step`."""
    return gru_sequence(x[None], h[None], weights)[1][0]


def rnn_step(
    x: Tensor, h: Tensor, weights: Sequence[Tensor], *, nonlinearity: str = "tanh"
) -> Tensor:
    """See :func:`seq2seq_ext.ops.rnn_step`."""
    return rnn_sequence(x[None], h[None], weights, nonlinearity=nonlinearity)[1][0]


# --------------------------------------------------------------------------------------------------
# Decoding.


def attention_step(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    lengths: Tensor | None = None,
    score: str = "dot",
    scale: float = 1.0,
    w_query: Tensor | None = None,
    v: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.attention_step`."""
    dtype, wide = query.dtype, state_dtype(query.dtype)
    q, k, values = query.to(wide), keys.to(wide), values.to(wide)
    if w_query is not None:
        q = linear(q, w_query.to(wide))
    mask = None
    if lengths is not None:
        positions = torch.arange(keys.shape[1], device=keys.device)
        mask = positions < lengths[:, None]
        # Padding may hold anything, NaN included; where() keeps it out of the gradients, too.
        k = torch.where(mask[..., None], k, 0)
        values = torch.where(mask[..., None], values, 0)
    if score == "dot":
        scores = scale * (k @ q[..., None])[..., 0]
    else:
        assert v is not None
        scores = torch.tanh(q[:, None] + k) @ v.to(wide)
    if mask is None:
        weights = torch.softmax(scores, dim=-1)
    else:  # the lowest finite number, not -inf: a row of length 0 must not become NaN
        scores = torch.where(mask, scores, torch.finfo(wide).min)
        weights = torch.where(mask, torch.softmax(scores, dim=-1), 0)
    context = (weights[:, None] @ values)[:, 0]
    return context.to(dtype), weights.to(dtype)


def vocab_pick(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    k: int = 1,
    banned: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.vocab_pick`. Differentiable here in log_probs, which the op is
    not."""
    logits = _vocab_logits(hidden, weight, bias, banned, temperature)
    # A stable sort leaves equal logits in index order: ties go to the lowest index.
    indices = logits.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return _vocab_results(logits, indices)


def vocab_sample(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    seed: Tensor,
    step: Tensor,
    rows: Tensor | None = None,
    banned: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """See :func:`seq2seq_ext.ops.vocab_sample`; `seed` and `step` are tensors here."""
    logits = _vocab_logits(hidden, weight, bias, banned, temperature)
    batch, words = logits.shape
    if rows is None:
        rows = torch.arange(batch, device=logits.device)
    keys = logits + gumbel(seed, step, rows, words, logits.dtype)
    largest = keys == keys.amax(dim=-1, keepdim=True)
    indices = torch.where(largest, torch.arange(words, device=logits.device), words - 1)
    log_probs, indices = _vocab_results(logits, indices.amin(dim=-1, keepdim=True))
    return log_probs[:, 0], indices[:, 0]


def _vocab_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    banned: Tensor | None,
    temperature: float,
) -> Tensor:
    wide = state_dtype(hidden.dtype)
    logits = linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))
    logits = logits * (1 / temperature)
    if banned is None:
        return logits
    words = torch.arange(logits.shape[1], device=logits.device)
    bits = banned[:, words // 32] >> (words % 32)
    return logits.masked_fill((bits & 1).bool(), -torch.inf)


def _vocab_results(logits: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, K) of words `indices` (B, K), and those."""
    log_probs = torch.log_softmax(logits, dim=-1).gather(-1, indices)
    # NaN or +inf among the logits, or nothing but -inf: there is no distribution to pick from.
    undefined = ~torch.isfinite(logits.amax(dim=-1, keepdim=True))
    first = torch.arange(indices.shape[1], device=logits.device)
    return torch.where(undefined, torch.nan, log_probs), torch.where(undefined, first, indices)


# --------------------------------------------------------------------------------------------------
# Loss.


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
    """See :func:`seq2seq_ext.ops.linear_cross_entropy`."""
    wide, words = state_dtype(hidden.dtype), weight.shape[0]
    counts = target != ignore_index
    target = torch.where(counts, target, 0)
    # Padding may hold anything, NaN included; where() keeps it out of the gradients, too.
    x = torch.where(counts[..., None], hidden.to(wide), 0)
    logits = linear(x, weight.to(wide), None if bias is None else bias.to(wide))
    log_probs = torch.log_softmax(logits, dim=-1)
    classes = x.new_ones(words) if class_weight is None else class_weight.to(wide)
    own = torch.where(counts, classes[target], 0)
    loss = -(1 - label_smoothing) * own * log_probs.gather(-1, target[..., None])[..., 0]
    if label_smoothing > 0:
        loss = loss - label_smoothing / words * (log_probs * classes).sum(-1)
    loss = torch.where(counts, loss, 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    divisor = own.sum()
    mean = loss.sum() / torch.where(divisor == 0, 1, divisor)
    return torch.where(divisor == 0, 0, mean)
