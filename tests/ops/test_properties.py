# SPDX-License-Identifier: MIT
"""Hypothesis: any shape and any options, ours against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq_ext import ops, reference
from tests.ops.cases import CELLS, KERNELS, Case, make, solve

bounded = settings(max_examples=60, deadline=None, database=None)


@st.composite
def cases(draw):
    cell = draw(st.sampled_from(CELLS))
    directions = draw(st.integers(1, 2))
    H = draw(st.integers(1, 40))
    return Case(
        cell,
        torch.float64,
        T=draw(st.integers(1, 12)),
        B=draw(st.integers(0, 40)),
        I=draw(st.integers(1, 40)),
        H=H,
        directions=directions,
        reverse=directions == 1 and draw(st.booleans()),
        bias=draw(st.booleans()),
        proj=draw(st.integers(0, H)) if cell == "lstm" else 0,
        lengths=draw(st.sampled_from([None, "full", "ragged", "zeros"])),
    )


@pytest.mark.parametrize("backend", KERNELS)
@bounded
@given(case=cases(), seed=st.integers(0, 2**31))
def test_sequence(backend, case, seed):
    problem = make(case, seed)
    ours, theirs = solve(backend, problem), solve("reference", problem)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-11, msg=name)


@bounded
@given(cases(), st.integers(0, 2**31), st.data())
def test_splitting_time_changes_nothing(case, seed, data):
    """Running T steps is running t steps and then T - t."""
    case = Case(case.cell, torch.float64, case.T, case.B, case.I, case.H)
    problem = make(case, seed)
    t = data.draw(st.integers(0, case.T))
    states = [s for s in (problem.h0, problem.c0) if s is not None]

    def run(x, states):
        if case.cell == "lstm":
            return ops.lstm_sequence(x, *states, problem.weights)
        if case.cell == "gru":
            return ops.gru_sequence(x, *states, problem.weights)
        return ops.rnn_sequence(x, *states, problem.weights, nonlinearity=case.cell)

    y, *finals = run(problem.x, states)
    parts = []
    for part in (problem.x[:t], problem.x[t:]):
        if len(part):
            y_part, *states = run(part, states)
            parts.append(y_part)
    torch.testing.assert_close(torch.cat(parts), y, rtol=1e-11, atol=1e-12)
    for a, b in zip(states, finals, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@bounded
@given(
    st.sampled_from(["dot", "additive"]),
    st.booleans(),
    *[st.integers(1, 40) for _ in range(4)],
    st.integers(0, 9),
    st.integers(0, 2**31),
)
def test_attention(score, projected, Q, A, S, C, B, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    arguments = {
        "query": normal(B, Q if projected else A),
        "keys": normal(B, S, A),
        "values": normal(B, S, C),
        "lengths": torch.randint(0, S + 1, (B,), generator=generator),
        "score": score,
        "scale": 0.3,
        "w_query": normal(A, Q) if projected else None,
        "v": normal(A) if score == "additive" else None,
    }
    ours, theirs = ops.attention_step(**arguments), reference.attention_step(**arguments)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    sums = torch.where(arguments["lengths"] > 0, 1.0, 0.0).double()
    torch.testing.assert_close(ours[1].sum(-1), sums)


@bounded
@given(
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(1, 300),
    st.booleans(),
    st.data(),
)
def test_vocab(B, H, V, bias, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    k = data.draw(st.integers(1, min(V, 12)))
    # Small integers: every sum is exact, so ties are ties for every order of summation.
    hidden, weight, b = (
        torch.randint(-2, 3, s, generator=generator).double() for s in ((B, H), (V, H), (V,))
    )
    ours = ops.vocab_pick(hidden, weight, b if bias else None, k=k)
    theirs = reference.vocab_pick(hidden, weight, b if bias else None, k=k)
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
