# SPDX-License-Identifier: MIT
"""The step ops: one step of a cell, against torch.nn's cells and the sequence ops."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.ops.cases import (
    CELLS,
    KERNELS,
    Case,
    Problem,
    device_of,
    error,
    forward,
    make,
    running,
    torch_nn,
    with_dtypes,
)

SHAPES = [(1, 1, 1), (1, 63, 65), (7, 7, 1), (65, 5, 7), (3, 500, 129)]  # (B, I, H)


def run(backend: str, problem: Problem) -> tuple[Tensor, ...]:
    """One step from the first of the problem's; the results on the CPU."""
    given = problem.to(device_of(backend))
    with torch.no_grad(), running(backend) as module:
        results = step(module, given, given.x[0])
    return tuple(r.cpu() for r in results)


def step(module: ModuleType, problem: Problem, x: Tensor) -> tuple[Tensor, ...]:
    states, weights, cell = [s[0] for s in problem.states], problem.weights, problem.case.cell
    if cell == "lstm":
        return module.lstm_step(x, *states, weights)
    if cell == "gru":
        return (module.gru_step(x, *states, weights),)
    return (module.rnn_step(x, *states, weights, nonlinearity=cell),)


def torch_cell(problem: Problem) -> tuple[Tensor, ...]:
    case = problem.case
    name = {"tanh": "rnn_tanh_cell", "relu": "rnn_relu_cell"}.get(case.cell, f"{case.cell}_cell")
    h = problem.h0[0]
    hx = (h, problem.c0[0]) if problem.c0 is not None else h
    result = getattr(torch._VF, name)(problem.x[0], hx, *problem.weights)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
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


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
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


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("proj", [0, 3])
def test_gradient_runs_a_sequence_of_one(backend, module, cell, dtype, proj):
    if proj and cell != "lstm":
        pytest.skip("only the LSTM projects")
    problem = make(Case(cell, dtype, 1, 3, 5, 7, proj=proj)).to(device_of(backend))
    x = problem.x[0].clone().requires_grad_()
    results = step(module, problem, x)
    expected = forward(backend, problem, x[None], problem.states, problem.weights)[1:]
    for result, e in zip(results, expected, strict=True):
        assert torch.equal(result, e[0])
    (grad,) = torch.autograd.grad(results[0].sum(), [x])
    (expected_grad,) = torch.autograd.grad(expected[0].sum(), [x])
    assert torch.equal(grad, expected_grad)
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("backend", KERNELS)
def test_float32_cell_state_stays_unrounded(backend):
    problem = make(Case("lstm", torch.bfloat16, 1, 3, 5, 9))
    c = torch.randn(1, 3, 9)
    _, wide = run(backend, replace(problem, c0=c))
    _, narrow = run(backend, replace(problem, c0=c.bfloat16()))
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.bfloat16
    assert wide.ne(wide.bfloat16().float()).any()


@pytest.mark.parametrize("backend", KERNELS)
def test_inputs_are_left_alone(backend):
    problem = make(Case("lstm", torch.float32, 1, 3, 5, 9)).to(device_of(backend))
    before = [t.clone() for t in (problem.x, *problem.states, *problem.weights)]
    run(backend, problem)
    after = (problem.x, *problem.states, *problem.weights)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
