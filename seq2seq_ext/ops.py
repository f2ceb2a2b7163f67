# SPDX-License-Identifier: MIT
"""The functional API: recurrent sequences, single steps, the two halves of a decode step, and the
loss.

Each function checks its arguments and runs the compiled kernel for the tensors' device; without one
it runs its namesake in :mod:`seq2seq_ext.reference` (``seq2seq_ext.backend_info()`` says which).

Legend: T time, B batch, I input, H hidden, P output of a step (= H, or the LSTM's projection), G
    gates (LSTM 4, GRU 3, RNN 1), D directions, S source length, Q query, A attention size, C
    context size, V vocabulary.

Dtypes: float32, float64, bfloat16, and float16 (which the CPU computes in float32). All floating
    arguments share one dtype, except the LSTM's cell state, which may also be float32 beside 16-bit
    tensors; it comes back in the dtype it was given in. Sums are float32 (float64 for float64), and
    so is the cell state from step to step. Under ``torch.autocast`` the tensors are cast to the
    autocast dtype; the cell state stays as given.

Inside a torch.func transform (``grad``, ``jvp``, ``vmap``, ...) and under forward-mode AD the
reference runs: the kernels know plain backward only.

Bad input raises ValueError, or TypeError for what is no tensor at all; the message names the
argument, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _checks, reference
from ._cross_entropy import linear_cross_entropy
from ._routing import (
    HAVE_CPU,
    cast,
    cast_dtypes,
    is_strict,
    must_cast,
    needs_grad,
    run_cast,
    without_autocast,
)
from ._routing import has_kernel as _has_kernel
from ._sampling import vocab_sample

if HAVE_CPU:
    from . import _registration

    kernels = _registration.register("seq2seq_ext")

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


# --------------------------------------------------------------------------------------------------
# Sequences.


def lstm_sequence(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer over a whole sequence, in one or both directions.

    Differentiable twice in x, h0, c0 and the weights. For its backward it keeps, per direction and
    time step, 4 H values of x's dtype and H of the state dtype for each row: 20 B H bytes in
    float32, 12 B H in bfloat16. It keeps nothing where no gradient is needed. The second derivative
    recomputes the sequence through `reference`.

    Args:
        x: (T, B, I), T >= 1. Any strides; no copy is made as long as the last dimension is
            contiguous.
        h0: (D, B, P), D 1 or 2.
        c0: (D, B, H), x's dtype or the state dtype.
        weights: for each direction, the forward one first, the tensors of ``torch.nn.LSTM``: w_ih
            (4H, I), w_hh (4H, P), then unless without bias b_ih (4H) and b_hh (4H), then if P != H
            w_hr (P, H).
        lengths: (B,) int64 on x's device, 0 <= length <= T, in any order; None: all T.
        reverse: run the only direction backwards (D = 1). The second direction of two always runs
            backwards.

    Returns:
        y (T, B, D*P), zero past each row's length; h_n (D, B, P) and c_n (D, B, H) after each row's
        last step. A reverse direction starts at each row's own end.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.sequence("lstm", x, h0, c0, weights, lengths, reverse)
            return run_cast(lstm_sequence, x, h0, c0, weights, lengths=lengths, reverse=reverse)
        if _has_kernel(x):
            save = needs_grad(x, h0, weights, c0)
            return kernels.lstm_sequence(x, h0, c0, weights, lengths, reverse, save)[:3]
        _checks.sequence("lstm", x, h0, c0, weights, lengths, reverse)
        _checks.lengths_values(lengths, x.shape[0])
        return reference.lstm_sequence(x, h0, c0, weights, lengths=lengths, reverse=reverse)
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h0=h0, c0=c0, weights=weights, lengths=lengths)
        raise


def gru_sequence(
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One GRU layer over a whole sequence, in one or both directions.

    As :func:`lstm_sequence`, without a cell state or a projection: weights w_ih (3H, I), w_hh (3H,
    H) and unless without bias b_ih (3H), b_hh (3H). Its backward keeps 4 H values of x's dtype per
    direction, row and time step.

    Returns:
        y (T, B, D*H), zero past each row's length; h_n (D, B, H).

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.sequence("gru", x, h0, None, weights, lengths, reverse)
            return run_cast(gru_sequence, x, h0, weights, lengths=lengths, reverse=reverse)
        if _has_kernel(x):
            save = needs_grad(x, h0, weights)
            return kernels.gru_sequence(x, h0, weights, lengths, reverse, save)[:2]
        _checks.sequence("gru", x, h0, None, weights, lengths, reverse)
        _checks.lengths_values(lengths, x.shape[0])
        return reference.gru_sequence(x, h0, weights, lengths=lengths, reverse=reverse)
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h0=h0, weights=weights, lengths=lengths)
        raise


def rnn_sequence(
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor],
    *,
    nonlinearity: str = "tanh",
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One Elman RNN layer over a whole sequence, in one or both directions.

    As :func:`gru_sequence`, with weights w_ih (H, I), w_hh (H, H), b_ih (H), b_hh (H) and
    `nonlinearity` "tanh" or "relu". Its backward keeps H values of x's dtype per direction, row and
    time step.

    Returns:
        y (T, B, D*H), zero past each row's length; h_n (D, B, H).

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    relu = _checks.is_relu(nonlinearity)
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.sequence("rnn", x, h0, None, weights, lengths, reverse)
            options = {"nonlinearity": nonlinearity, "lengths": lengths, "reverse": reverse}
            return run_cast(rnn_sequence, x, h0, weights, **options)
        if _has_kernel(x):
            save = needs_grad(x, h0, weights)
            return kernels.rnn_sequence(x, h0, weights, lengths, relu, reverse, save)[:2]
        _checks.sequence("rnn", x, h0, None, weights, lengths, reverse)
        _checks.lengths_values(lengths, x.shape[0])
        return reference.rnn_sequence(
            x, h0, weights, nonlinearity=nonlinearity, lengths=lengths, reverse=reverse
        )
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h0=h0, weights=weights, lengths=lengths)
        raise


# --------------------------------------------------------------------------------------------------
# Steps. Their kernels carry no autograd: where a gradient is needed they run as a sequence of one.


def lstm_step(x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One step of an LSTM cell. A row's result does not depend, bit for bit, on the other rows.

    Args:
        x: (B, I).
        h: (B, P).
        c: (B, H), x's dtype or the state dtype.
        weights: one direction's tensors, as for :func:`lstm_sequence`.

    Returns:
        h (B, P) and c (B, H).

    Raises:
        ValueError: an argument's shape, dtype or device does not fit.
    """
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.step("lstm", x, h, c, weights)
            return run_cast(lstm_step, x, h, c, weights)
        if needs_grad(x, h, weights, c):
            _checks.step("lstm", x, h, c, weights)
            _, h_n, c_n = lstm_sequence(x[None], h[None], c[None], weights)
            return h_n[0], c_n[0]
        if _has_kernel(x):
            return kernels.lstm_step(x, h, c, weights)
        _checks.step("lstm", x, h, c, weights)
        return reference.lstm_step(x, h, c, weights)
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h=h, c=c, weights=weights)
        raise


def gru_step(x: Tensor, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """One step of a GRU cell: x (B, I), h (B, H), weights as for :func:`gru_sequence`; returns h
    (B, H).

    A row's result does not depend, bit for bit, on the other rows.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit.
    """
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.step("gru", x, h, None, weights)
            return run_cast(gru_step, x, h, weights)
        if needs_grad(x, h, weights):
            _checks.step("gru", x, h, None, weights)
            return gru_sequence(x[None], h[None], weights)[1][0]
        if _has_kernel(x):
            return kernels.gru_step(x, h, weights)
        _checks.step("gru", x, h, None, weights)
        return reference.gru_step(x, h, weights)
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h=h, weights=weights)
        raise


def rnn_step(
    x: Tensor, h: Tensor, weights: Sequence[Tensor], *, nonlinearity: str = "tanh"
) -> Tensor:
    """One step of an Elman RNN cell: x (B, I), h (B, H), weights as for :func:`rnn_sequence`;
    returns h (B, H).

    A row's result does not depend, bit for bit, on the other rows.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    relu = _checks.is_relu(nonlinearity)
    try:
        if must_cast(x):
            if is_strict(x):
                _checks.step("rnn", x, h, None, weights)
            return run_cast(rnn_step, x, h, weights, nonlinearity=nonlinearity)
        if needs_grad(x, h, weights):
            _checks.step("rnn", x, h, None, weights)
            return rnn_sequence(x[None], h[None], weights, nonlinearity=nonlinearity)[1][0]
        if _has_kernel(x):
            return kernels.rnn_step(x, h, weights, relu)
        _checks.step("rnn", x, h, None, weights)
        return reference.rnn_step(x, h, weights, nonlinearity=nonlinearity)
    except _checks.TYPE_ERRORS:
        _checks.types(x=x, h=h, weights=weights)
        raise


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
    """Scores, masked softmax and context of one decoder step.

    With q = w_query @ query (or the query itself), score "dot" is ``scale * q . keys[s]`` (Luong et
    al. 2015; with w_query = W_a^T it is their "general" score) and "additive" is ``v . tanh(q +
    keys[s])`` (Bahdanau et al. 2015). The caller projects the keys, once per sentence, where the
    score wants it. A row's result does not depend, bit for bit, on the other rows, nor on what
    stands past its length.

    Where a gradient is needed the formula of `reference` runs, and autograd keeps its
    intermediates.

    Args:
        query: (B, Q).
        keys: (B, S, A), S >= 1.
        values: (B, S, C).
        lengths: (B,) int64 on query's device, 0 <= length <= S; None: all S. Length 0 gives zeros.
        score: "dot" or "additive".
        scale: factor of the "dot" score.
        w_query: (A, Q); None: Q == A.
        v: (A,), for "additive" only.

    Returns:
        context (B, C) and weights (B, S), which are zero past a row's length.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    additive = _checks.is_additive(score)
    try:
        if must_cast(query):
            if is_strict(query):
                _checks.attention(query, keys, values, lengths, additive, w_query, v)
            weights = {"w_query": w_query, "v": v}
            options = {"lengths": lengths, "score": score, "scale": scale}
            return run_cast(attention_step, query, keys, values, **options, **weights)
        parameters = [t for t in (w_query, v) if t is not None]
        if not needs_grad(query, keys, parameters, values) and _has_kernel(query):
            return kernels.attention_step(query, keys, values, lengths, additive, scale, w_query, v)
        _checks.attention(query, keys, values, lengths, additive, w_query, v)
        _checks.lengths_values(lengths, keys.shape[1])
        return reference.attention_step(
            query, keys, values, lengths=lengths, score=score, scale=scale, w_query=w_query, v=v
        )
    except _checks.TYPE_ERRORS:
        _checks.types(query=query, keys=keys, values=values, lengths=lengths)
        _checks.types(scale=scale, w_query=w_query, v=v)
        raise


def vocab_pick(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    k: int = 1,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    panels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k most probable words of ``softmax((hidden @ weight.T + bias) / temperature)`` over the
    words that are not banned, without writing that (B, V) matrix out.

    Not differentiable: the results are detached. A row's result does not depend, bit for bit, on
    the other rows.

    Args:
        hidden: (B, H).
        weight: (V, H).
        bias: (V,) or None.
        k: 1 <= k <= V.
        banned: (B, ceil(V / 32)) int32, of each row a bit a word: bit v % 32 of [v // 32] bans word
            v, whatever its logit. None: no word is banned.
        temperature: positive.
        panels: what `pack_panels` made of the weight: it is read in its stead, the sooner the fewer
            rows there are. Sums are then made in another order.

    Returns:
        log_probs (B, k), float32 (float64 for float64), descending; indices (B, k) int64. Ties go
        to the lowest index; banned words come last, with log-probability -inf. A row whose logits
        hold a NaN or +inf, or nothing but -inf (all banned, say), gives NaN and the indices
        0 .. k-1.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    try:
        if temperature != 1:
            _checks.temperature(temperature)
        if must_cast(hidden):
            if is_strict(hidden):
                _checks.vocab(hidden, weight, bias, k, banned)
            dtype, _ = cast_dtypes(hidden)
            given = (cast(hidden, dtype), cast(weight, dtype), cast(bias, dtype))
            with without_autocast(hidden):
                return vocab_pick(*given, k=k, banned=banned, temperature=temperature)
        if _has_kernel(hidden):
            if torch.is_grad_enabled():
                hidden, weight = hidden.detach(), weight.detach()
                bias = None if bias is None else bias.detach()
            return kernels.vocab_pick(hidden, weight, bias, k, banned, temperature, panels)
        _checks.vocab(hidden, weight, bias, k, banned)
        with torch.no_grad():
            return reference.vocab_pick(
                hidden, weight, bias, k=k, banned=banned, temperature=temperature
            )
    except _checks.TYPE_ERRORS:
        _checks.types(hidden=hidden, weight=weight, bias=bias, k=k)
        _checks.types(banned=banned, temperature=temperature, panels=panels)
        raise


def pack_panels(weight: Tensor, gates: int = 0) -> Tensor | None:
    """An output layer's weight (V, H), or a cell's (G*H, K) with gates G, as the CPU kernels of
    decoding read it fastest: for `vocab_pick`, and for `generation.native`. Its layout is that of
    the processor's instruction set. None: no kernel is there to read it."""
    if not (HAVE_CPU and weight.is_cpu):
        return None
    panels: Tensor = torch.ops.seq2seq_ext.pack_panels(weight.detach(), gates)
    return panels
