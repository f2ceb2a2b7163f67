# SPDX-License-Identifier: MIT
import math

import pytest
import torch

from seq2seq_ext.nn import Attention
from seq2seq_ext.nn.attention import ATTENTION_KINDS

KINDS = pytest.mark.parametrize("kind", ATTENTION_KINDS)


def by_hand(attention, query, memory, lengths):
    """The equations of the class docstring, one row and one position at a time."""
    contexts, weights = [], []
    for b, length in enumerate(lengths):
        scores = []
        for m in memory[b, :length]:
            if attention.kind in ("dot", "scaled_dot"):
                score = query[b] @ m / (math.sqrt(len(m)) if attention.kind == "scaled_dot" else 1)
            elif attention.kind == "general":
                score = query[b] @ (attention.key.weight @ m)
            else:
                hidden = attention.query.weight @ query[b] + attention.key.weight @ m
                score = attention.v @ torch.tanh(hidden + attention.key.bias)
            scores.append(score)
        row = torch.zeros(memory.size(1), dtype=memory.dtype)
        if length:
            row[:length] = torch.softmax(torch.stack(scores), 0)
        weights.append(row)
        contexts.append(row @ memory[b])
    return torch.stack(contexts), torch.stack(weights)


def make(kind, dtype=torch.float64):
    memory_size = 6 if kind in ("dot", "scaled_dot") else 8
    options = {"attention_size": 5} if kind == "additive" else {}
    attention = Attention(6, memory_size, kind, dtype=dtype, **options)
    return attention, torch.randn(4, 7, memory_size, dtype=dtype), torch.tensor([7, 3, 0, 1])


@KINDS
def test_one_step_and_all_steps_follow_the_equations(kind):
    attention, memory, lengths = make(kind)
    queries = torch.randn(4, 3, 6, dtype=torch.float64)
    prepared = attention.prepare(memory, lengths)
    contexts, weights = attention(queries, prepared)
    assert contexts.shape == (4, 3, memory.size(-1))
    assert weights.shape == (4, 3, 7)
    for t in range(3):
        want = by_hand(attention, queries[:, t], memory, lengths)
        torch.testing.assert_close((contexts[:, t], weights[:, t]), want)
        torch.testing.assert_close(attention(queries[:, t], prepared), want)
        with torch.inference_mode():
            torch.testing.assert_close(attention(queries[:, t], prepared), want)


@KINDS
def test_without_lengths_every_position_counts(kind):
    attention, memory, _ = make(kind)
    query = torch.randn(4, 6, dtype=torch.float64)
    want = attention(query, attention.prepare(memory, torch.full((4,), 7)))
    torch.testing.assert_close(attention(query, attention.prepare(memory)), want)
    torch.testing.assert_close(
        attention(query[:, None], attention.prepare(memory)), tuple(t[:, None] for t in want)
    )


@KINDS
def test_gradients_of_both_forms(kind):
    attention, memory, lengths = make(kind)
    memory.requires_grad_()
    query = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    wanted = [query, memory, *attention.parameters()]
    grads = []
    for form in (query, query[:, None]):
        context, weights = attention(form, attention.prepare(memory, lengths))
        loss = context.square().sum() + weights.square().sum()
        grads.append(torch.autograd.grad(loss, wanted))
    torch.testing.assert_close(grads[0], grads[1])
    assert all(g.isfinite().all() for g in grads[0])
    assert not grads[0][1][2].any()  # the row of length 0
    assert torch.autograd.gradcheck(
        lambda q, m: attention(q[:, None], attention.prepare(m, lengths)), (query, memory)
    )


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_invariant_preparation_is_the_same_alone_and_in_a_batch(kind, dtype):
    attention, memory, _ = make(kind, torch.float32)
    attention, memory = attention.to(dtype), torch.randn(33, 21, memory.size(-1)).to(dtype)
    with torch.inference_mode():
        keys = attention.prepare(memory, invariant=True).keys
        torch.testing.assert_close(keys, attention.prepare(memory).keys, rtol=1e-2, atol=1e-2)
        for row in (0, 5, 32):
            for size in (21, 16, 3):
                alone = attention.prepare(memory[row : row + 1, :size], invariant=True).keys
                assert torch.equal(alone[0], keys[row, :size])


def test_errors():
    with pytest.raises(ValueError, match=r"kind must be one of dot.*got 'luong'"):
        Attention(4, 4, "luong")
    with pytest.raises(ValueError, match="needs query_size == memory_size, got 4 and 5"):
        Attention(4, 5, "dot")
    with pytest.raises(ValueError, match="attention_size is for kind 'additive'"):
        Attention(4, 4, "dot", attention_size=3)
    with pytest.raises(ValueError, match="query_size must be greater than zero, got 0"):
        Attention(0, 4, "general")
    attention = Attention(4, 5, "general")
    with pytest.raises(ValueError, match=r"memory must be \(B, S, 5\), got \(2, 3, 4\)"):
        attention.prepare(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"lengths must have shape \(2,\)"):
        attention.prepare(torch.zeros(2, 3, 5), torch.ones(3, dtype=torch.int64))
    memory = attention.prepare(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=r"query must be \(B, 4\) or \(B, T, 4\), got \(2, 5\)"):
        attention(torch.zeros(2, 5), memory)
