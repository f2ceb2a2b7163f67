# SPDX-License-Identifier: MIT
"""The oracle itself: against torch.nn in float64, and in the promises of its docstring."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from seq2seq_ext import reference

LAYERS = [
    (nn.LSTM, {}, reference.lstm_sequence, {}),
    (nn.LSTM, {"proj_size": 3}, reference.lstm_sequence, {}),
    (nn.GRU, {}, reference.gru_sequence, {}),
    (nn.RNN, {"nonlinearity": "tanh"}, reference.rnn_sequence, {"nonlinearity": "tanh"}),
    (nn.RNN, {"nonlinearity": "relu"}, reference.rnn_sequence, {"nonlinearity": "relu"}),
]
CELLS = [
    (nn.LSTMCell, {}, reference.lstm_step, {}),
    (nn.GRUCell, {}, reference.gru_step, {}),
    (nn.RNNCell, {"nonlinearity": "tanh"}, reference.rnn_step, {"nonlinearity": "tanh"}),
    (nn.RNNCell, {"nonlinearity": "relu"}, reference.rnn_step, {"nonlinearity": "relu"}),
]
T, B, I, H = 6, 4, 5, 7  # noqa: E741


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(("module", "kwargs", "function", "options"), LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_layers(module, kwargs, function, options, bidirectional, bias, ragged):
    layer = module(I, H, bidirectional=bidirectional, bias=bias, **kwargs).double()
    P = kwargs.get("proj_size", H)
    D = 1 + bidirectional
    x, h0, c0 = normal(T, B, I), normal(D, B, P), normal(D, B, H)
    states = (h0, c0) if module is nn.LSTM else (h0,)
    hx = states if module is nn.LSTM else h0
    lengths = torch.tensor([3, 6, 1, 6]) if ragged else None
    if ragged:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, finals = layer(packed, hx)
        y, _ = nn.utils.rnn.pad_packed_sequence(output, total_length=T)
    else:
        y, finals = layer(x, hx)
    expected = (y, *(finals if module is nn.LSTM else (finals,)))
    results = function(x, *states, layer._flat_weights, lengths=lengths, **options)
    for result, e in zip(results, expected, strict=True):
        torch.testing.assert_close(result, e, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("module", "kwargs", "function", "options"), CELLS)
def test_cells(module, kwargs, function, options):
    cell = module(I, H, **kwargs).double()
    x, h, c = normal(B, I), normal(B, H), normal(B, H)
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    if module is nn.LSTMCell:
        expected, results = cell(x, (h, c)), function(x, h, c, weights)
    else:
        expected, results = (cell(x, h),), (function(x, h, weights, **options),)
    for result, e in zip(results, expected, strict=True):
        torch.testing.assert_close(result, e, rtol=1e-12, atol=1e-14)


def test_low_precision_keeps_the_cell_state_wide():
    """bfloat16: c goes from step to step in float32, h in bfloat16."""
    layer = nn.LSTM(I, H).bfloat16()
    weights = [w.detach() for w in layer._flat_weights]
    x, h, c = torch.randn(T, B, I).bfloat16(), torch.zeros(B, H).bfloat16(), torch.zeros(B, H)
    y, _, c_n = reference.lstm_sequence(x, h[None], c[None], weights)
    for t in range(T):
        h, c = reference.lstm_step(x[t], h, c, weights)
        assert torch.equal(h, y[t])
    assert torch.equal(c, c_n[0])
    assert c.dtype == torch.float32
    assert h.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    """Every floating dtype runs, forward and backward, and comes back as itself."""
    weights = [torch.randn(s).to(dtype).requires_grad_() for s in ((21, I), (21, H), (21,), (21,))]
    y, h_n = reference.gru_sequence(
        torch.randn(T, B, I).to(dtype), torch.zeros(1, B, H, dtype=dtype), weights
    )
    assert y.dtype == h_n.dtype == dtype
    y.sum().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in weights)


def test_attention_is_softmax_attention():
    query, keys, values = normal(B, I), normal(B, T, I), normal(B, T, H)
    context, weights = reference.attention_step(query, keys, values, scale=I**-0.5)
    expected = nn.functional.scaled_dot_product_attention(query[:, None], keys, values)[:, 0]
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, dtype=torch.float64))


def test_attention_scores():
    """General is dot with w_query = W_a^T; additive is Bahdanau's v . tanh(W q + k)."""
    query, keys, values, w = normal(2, 3), normal(2, 4, 5), normal(2, 4, 6), normal(5, 3)
    _, weights = reference.attention_step(query, keys, values, w_query=w)
    scores = torch.einsum("bq,aq,bsa->bs", query, w, keys)
    torch.testing.assert_close(weights, torch.softmax(scores, -1))
    v = normal(5)
    _, weights = reference.attention_step(query, keys, values, score="additive", w_query=w, v=v)
    scores = torch.einsum("a,bsa->bs", v, torch.tanh((query @ w.T)[:, None] + keys))
    torch.testing.assert_close(weights, torch.softmax(scores, -1))


def test_attention_gradients_survive_padding():
    query, keys, values = (
        t.requires_grad_() for t in (normal(3, 4), normal(3, 5, 4), normal(3, 5, 2))
    )
    lengths = torch.tensor([0, 2, 5])
    with torch.no_grad():
        keys[1, 2:] = math.nan
        values[1, 2:] = math.inf
    context, weights = reference.attention_step(query, keys, values, lengths=lengths)
    (context.sum() + weights.pow(2).sum()).backward()
    for tensor in (query, keys, values):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert keys.grad[1, 2:].eq(0).all()


def test_sequence_gradients_survive_padding():
    x = normal(T, B, I)
    x[4:, 0] = math.nan
    x.requires_grad_()
    weights = [normal(*s).requires_grad_() for s in ((H, I), (H, H))]
    y, _ = reference.rnn_sequence(
        x, torch.zeros(1, B, H, dtype=torch.float64), weights, lengths=torch.tensor([4, 6, 0, 1])
    )
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(w.grad.isfinite().all() for w in weights)


def test_vocab_pick():
    hidden, weight, bias = normal(3, 4), normal(9, 4), normal(9)
    log_probs, indices = reference.vocab_pick(hidden, weight, bias, k=4)
    expected = torch.log_softmax(hidden @ weight.T + bias, -1).topk(4)
    torch.testing.assert_close(log_probs, expected.values)
    assert torch.equal(indices, expected.indices)
