# SPDX-License-Identifier: MIT
"""The step ops: one step of a cell, against torch.nn's cells and the sequence ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seq2seq_ext import ops, reference
from tests.ops.cases import BACKENDS, CELLS, DTYPES, Case, Problem, error, make, torch_nn

MODULES = {"reference": reference, "cpu": ops}
SHAPES = [(1, 1, 1), (1, 63, 65), (7, 7, 1), (65, 5, 7), (3, 500, 129)]  # (B, I, H)


def run(backend: str, problem: Problem) -> tuple[Tensor, ...]:
    module, case = MODULES[backend], problem.case
    x, h, weights = problem.x[0], problem.h0[0], problem.weights
    with torch.no_grad():
        if case.cell == "lstm":
            assert problem.c0 is not None
            return module.lstm_step(x, h, problem.c0[0], weights)
        if case.cell == "gru":
            return (module.gru_step(x, h, weights),)
        return (module.rnn_step(x, h, weights, nonlinearity=case.cell),)


def torch_cell(problem: Problem) -> tuple[Tensor, ...]:
    case = problem.case
    name = {"tanh": "rnn_tanh_cell", "relu": "rnn_relu_cell"}.get(case.cell, f"{case.cell}_cell")
    h = problem.h0[0]
    hx = (h, problem.c0[0]) if problem.c0 is not None else h
    result = getattr(torch._VF, name)(problem.x[0], hx, *problem.weights)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parity(backend, dtype, cell, bias, shape):
    B, I, H = shape  # noqa: E741
    problems = [make(Case(cell, dtype, 1, B, I, H, bias=bias), seed) for seed in range(4)]
    exact = [run("reference", p.to(torch.float64)) for p in problems]
    ours = [run(backend, p) for p in problems]
    peers = [torch_cell(p) for p in problems]
    for n in range(len(exact[0])):
        e = [r[n] for r in exact]
        found, peer = (error([r[n] for r in results], e, dtype) for results in (ours, peers))
        assert found.within(peer, dtype), (n, found, peer)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize(("H", "proj"), [(7, 1), (65, 63)])
def test_projection(backend, dtype, bias, H, proj):
    """torch.nn's cells know no projection; its one-step layer does."""
    case = Case("lstm", dtype, 1, 5, 9, H, proj=proj, bias=bias)
    problems = [make(case, seed) for seed in range(4)]
    exact = [run("reference", p.to(torch.float64)) for p in problems]
    ours = [run(backend, p) for p in problems]
    peers = [torch_nn(case, p.x, (p.h0, p.c0), p.weights, None)[1:] for p in problems]
    for n in range(2):
        e = [r[n] for r in exact]
        found = error([r[n] for r in ours], e, dtype)
        peer = error([r[n][0] for r in peers], e, dtype)
        assert found.within(peer, dtype), (n, found, peer)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("proj", [0, 3])
def test_gradient_runs_a_sequence_of_one(cell, dtype, proj):
    if proj and cell != "lstm":
        pytest.skip("only the LSTM projects")
    problem = make(Case(cell, dtype, 1, 3, 5, 7, proj=proj))
    x, h = problem.x[0].clone().requires_grad_(), problem.h0[0]
    if cell == "lstm":
        assert problem.c0 is not None
        results = ops.lstm_step(x, h, problem.c0[0], problem.weights)
        expected = ops.lstm_sequence(x[None], problem.h0, problem.c0, problem.weights)[1:]
    elif cell == "gru":
        results = (ops.gru_step(x, h, problem.weights),)
        expected = ops.gru_sequence(x[None], problem.h0, problem.weights)[1:]
    else:
        results = (ops.rnn_step(x, h, problem.weights, nonlinearity=cell),)
        options = {"nonlinearity": cell}
        expected = ops.rnn_sequence(x[None], problem.h0, problem.weights, **options)[1:]
    for result, e in zip(results, expected, strict=True):
        assert torch.equal(result, e[0])
    (grad,) = torch.autograd.grad(results[0].sum(), [x])
    (expected_grad,) = torch.autograd.grad(expected[0].sum(), [x])
    assert torch.equal(grad, expected_grad)
    assert grad.abs().sum() > 0


def test_float32_cell_state_stays_unrounded():
    problem = make(Case("lstm", torch.bfloat16, 1, 3, 5, 9))
    assert problem.c0 is not None
    c = torch.randn(3, 9)
    with torch.no_grad():
        _, wide = ops.lstm_step(problem.x[0], problem.h0[0], c, problem.weights)
        _, narrow = ops.lstm_step(problem.x[0], problem.h0[0], c.bfloat16(), problem.weights)
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.bfloat16
    assert wide.ne(wide.bfloat16().float()).any()


def test_inputs_are_left_alone():
    problem = make(Case("lstm", torch.float32, 1, 3, 5, 9))
    assert problem.c0 is not None
    before = [t.clone() for t in (problem.x, problem.h0, problem.c0, *problem.weights)]
    run("cpu", problem)
    after = (problem.x, problem.h0, problem.c0, *problem.weights)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
