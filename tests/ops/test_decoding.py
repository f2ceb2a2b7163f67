# SPDX-License-Identifier: MIT
"""attention_step and vocab_pick against float64 formulas written independently of reference.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seq2seq_ext import ops, reference
from tests.ops.cases import BACKENDS, KERNELS, Error, error, with_dtypes

# What one rounding of the result to `dtype` costs, and sums of a few hundred terms in float32.
PEER = {
    torch.float32: Error(4.0, 0.5, 1),
    torch.bfloat16: Error(0.5, 0.2, 1),
    torch.float16: Error(0.5, 0.2, 1),
    torch.float64: Error(4.0, 0.5, 1),
}


def attention_inputs(dtype, score, B, Q, A, S, C, projected):
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    query = normal(B, Q if projected else A)
    return {
        "query": query,
        "keys": normal(B, S, A),
        "values": normal(B, S, C),
        "lengths": torch.randint(0, S + 1, (B,)),
        "score": score,
        "scale": A**-0.5,
        "w_query": (normal(A, Q).double() * Q**-0.5).to(dtype) if projected else None,
        "v": normal(A) if score == "additive" else None,
    }


def attention_oracle(query, keys, values, lengths, score, scale, w_query, v):
    """One row at a time, in float64, with no mask: only what is valid is looked at."""
    B, S, _ = keys.shape
    context = torch.zeros(B, values.shape[2], dtype=torch.float64)
    weights = torch.zeros(B, S, dtype=torch.float64)
    for b in range(B):
        n = S if lengths is None else int(lengths[b])
        if n == 0:
            continue
        q = query[b].double() if w_query is None else w_query.double() @ query[b].double()
        k = keys[b, :n].double()
        scores = scale * (k @ q) if score == "dot" else torch.tanh(q + k) @ v.double()
        weights[b, :n] = torch.exp(scores - scores.max()) / torch.exp(scores - scores.max()).sum()
        context[b] = weights[b, :n] @ values[b, :n].double()
    return context, weights


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.parametrize("projected", [False, True], ids=["plain", "w_query"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "lengths"])
@pytest.mark.parametrize(
    ("B", "Q", "A", "S", "C"),
    [(1, 1, 1, 1, 1), (3, 7, 5, 9, 3), (7, 63, 65, 31, 129), (2, 65, 7, 200, 63)],
)
def test_attention(module, backend, dtype, score, projected, masked, B, Q, A, S, C):
    inputs = attention_inputs(dtype, score, B, Q, A, S, C, projected)
    if not masked:
        inputs["lengths"] = None
    results = module.attention_step(**inputs)
    for result, exact in zip(results, attention_oracle(**inputs), strict=True):
        found = error([result], [exact], dtype)
        assert found.within(PEER[dtype], dtype), found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", ["dot", "additive"])
def test_attention_ignores_padding(module, backend, score):
    """NaN past a row's length changes no bit, and a row of length 0 is zero."""
    inputs = attention_inputs(torch.float32, score, 4, 6, 6, 8, 5, True)
    inputs["lengths"] = torch.tensor([8, 3, 0, 1])
    clean = module.attention_step(**inputs)
    for b, length in enumerate(inputs["lengths"].tolist()):
        inputs["keys"][b, length:] = math.nan
        inputs["values"][b, length:] = math.nan
    dirty = module.attention_step(**inputs)
    for c, d in zip(clean, dirty, strict=True):
        assert torch.equal(c, d)
        assert c[2].eq(0).all()
    assert clean[1][1, 3:].eq(0).all()
    torch.testing.assert_close(clean[1].sum(-1), torch.tensor([1.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize("backend", KERNELS)
def test_attention_large_scores(module, backend):
    """Scores of +-1e4 neither overflow nor lose the largest."""
    query, keys = torch.full((1, 1), 1e2), torch.tensor([[[1e2], [-1e2], [1e2 - 1]]])
    values = torch.eye(3)[None]
    context, weights = module.attention_step(query, keys, values)
    tiny = torch.finfo(torch.float32).tiny  # exp(-100) is below, and may be 0
    torch.testing.assert_close(context, torch.tensor([[1.0, 0.0, 0.0]]), rtol=0, atol=tiny)
    assert torch.equal(weights, context)


def test_attention_gradient_is_the_references():
    inputs = attention_inputs(torch.float64, "additive", 3, 4, 5, 6, 2, True)
    leaves = {n: t.requires_grad_() for n, t in inputs.items() if n in ("query", "keys", "v")}
    ours = torch.autograd.grad(ops.attention_step(**inputs)[0].sum(), leaves.values())
    theirs = torch.autograd.grad(reference.attention_step(**inputs)[0].sum(), leaves.values())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    names = ("query", "keys", "values", "w_query", "v")
    tensors = [inputs[n].detach().requires_grad_() for n in names]

    def call(*args: Tensor) -> tuple[Tensor, Tensor]:
        return ops.attention_step(**{**inputs, **dict(zip(names, args, strict=True))})

    assert torch.autograd.gradcheck(call, tensors)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize(
    ("B", "H", "V", "k"),
    [(1, 1, 1, 1), (3, 7, 11, 11), (7, 63, 1000, 1), (2, 65, 65, 5), (33, 16, 257, 4)],
)
def test_vocab(module, backend, dtype, bias, B, H, V, k):
    hidden = torch.randn(B, H).to(dtype)
    weight = (torch.randn(V, H) * 3 * H**-0.5).to(dtype)
    b = torch.randn(V).to(dtype) if bias else None
    log_probs, indices = module.vocab_pick(hidden, weight, b, k=k)
    assert log_probs.shape == indices.shape == (B, k)
    assert indices.dtype == torch.int64
    assert log_probs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    logits = hidden.double() @ weight.double().T + (0 if b is None else b.double())
    exact = torch.log_softmax(logits, -1)
    # Inputs are exact in every dtype and sums are float32 at least: bfloat16 is no excuse.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(log_probs.double(), exact.gather(1, indices), **close)
    torch.testing.assert_close(log_probs.double(), exact.topk(k).values, **close)
    assert all(len(set(row)) == k for row in indices.tolist())
    assert (log_probs[:, :-1] >= log_probs[:, 1:]).all()


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("V", [5, 64, 1003])
def test_vocab_ties_go_to_the_lowest_index(module, backend, dtype, V):
    hidden, weight = torch.ones(3, 4, dtype=dtype), torch.ones(V, 4, dtype=dtype)
    log_probs, indices = module.vocab_pick(hidden, weight, k=4)
    assert indices.tolist() == [[0, 1, 2, 3]] * 3
    torch.testing.assert_close(log_probs, torch.full_like(log_probs, -math.log(V)))
    bias = torch.zeros(V, dtype=dtype)
    bias[[V - 1, 2, V // 2]] = 1
    _, indices = module.vocab_pick(hidden, weight, bias, k=5)
    first = sorted({V - 1, 2, V // 2})
    rest = [n for n in range(V) if n not in first]
    assert indices[0].tolist() == (first + rest)[:5]


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
def test_vocab_rows_without_a_distribution(module, backend, dtype):
    """NaN anywhere, or nothing but -inf: NaN and the first indices. Its neighbours stay whole."""
    V = 37
    weight = torch.eye(V, dtype=dtype)
    hidden = torch.zeros(4, V, dtype=dtype)
    hidden[1, 20] = math.nan
    hidden[3, 5] = 9
    log_probs, indices = module.vocab_pick(hidden, weight, k=3)
    assert log_probs[1].isnan().all()
    assert indices[1].tolist() == [0, 1, 2]
    assert indices[3].tolist() == [5, 0, 1]
    assert log_probs[[0, 2, 3]].isfinite().all()
    zero = torch.zeros(1, V, dtype=dtype)
    bias = torch.full((V,), -math.inf, dtype=dtype)
    log_probs, indices = module.vocab_pick(zero, weight, bias, k=2)
    assert log_probs.isnan().all()
    assert indices.tolist() == [[0, 1]]
    bias[7] = 0  # one word left: certain; the next best have probability zero
    log_probs, indices = module.vocab_pick(zero, weight, bias, k=2)
    assert log_probs.tolist() == [[0.0, -math.inf]]
    assert indices.tolist() == [[7, 0]]


def test_vocab_is_detached():
    hidden = torch.randn(2, 3, requires_grad=True)
    log_probs, indices = ops.vocab_pick(hidden, torch.randn(5, 3, requires_grad=True))
    assert not log_probs.requires_grad
    assert not indices.requires_grad
