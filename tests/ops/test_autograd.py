# SPDX-License-Identifier: MIT
"""Derivatives by finite differences in float64, and what autograd is spared."""

from __future__ import annotations

import pytest
import torch

from seq2seq_ext import ops
from tests.ops.cases import BACKENDS, CELLS, KERNELS, Case, device_of, forward, make, solve

OPTIONS = {
    "plain": {},
    "nobias": {"bias": False},
    "reverse": {"reverse": True, "lengths": "ragged"},
    "both": {"directions": 2, "lengths": "zeros"},
}


def leaves_of(problem):
    tensors = [problem.x, *problem.states, *problem.weights]
    return [t.clone().requires_grad_() for t in tensors], len(problem.states)


def function_of(backend, problem, count):
    def call(x, *rest):
        return forward(backend, problem, x, rest[:count], rest[count:])

    return call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradcheck(backend, cell, options):
    case = Case(cell, torch.float64, T=3, B=2, I=2, H=3, **options)
    problem = make(case).to(device_of(backend))
    leaves, count = leaves_of(problem)
    assert torch.autograd.gradcheck(function_of(backend, problem, count), leaves)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradgradcheck(backend, cell, options):
    case = Case(cell, torch.float64, T=3, B=2, I=2, H=2, **options)
    problem = make(case).to(device_of(backend))
    leaves, count = leaves_of(problem)
    assert torch.autograd.gradgradcheck(function_of(backend, problem, count), leaves)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("lengths", [None, "zeros"])
def test_projection(backend, lengths):
    case = Case("lstm", torch.float64, T=3, B=2, I=2, H=3, proj=2, directions=2, lengths=lengths)
    problem = make(case).to(device_of(backend))
    leaves, count = leaves_of(problem)
    assert torch.autograd.gradcheck(function_of(backend, problem, count), leaves)
    if backend != "cuda_host":  # the second derivative is the reference's, for all of them
        assert torch.autograd.gradgradcheck(function_of(backend, problem, count), leaves)


def test_third_derivative():
    problem = make(Case("tanh", torch.float64, T=2, B=1, I=1, H=2))
    leaves, count = leaves_of(problem)

    def third(backend):
        y = function_of(backend, problem, count)(*leaves)[0]
        (g,) = torch.autograd.grad(y.pow(2).sum(), leaves[0], create_graph=True)
        (gg,) = torch.autograd.grad(g.sin().sum(), leaves[1], create_graph=True)
        return torch.autograd.grad(gg.sum(), leaves[2:])

    for ours, theirs in zip(third("cpu"), third("reference"), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_only_what_is_wanted(backend, cell):
    """Each input alone gets the gradient it gets among all; each output alone pulls its weight."""
    case = Case(cell, torch.float64, T=3, B=2, I=4, H=5, directions=2, lengths="ragged")
    problem = make(case).to(device_of(backend))
    leaves, count = leaves_of(problem)
    call = function_of(backend, problem, count)
    everything = torch.autograd.grad(call(*leaves), leaves, problem.cotangents)
    for n in range(len(leaves)):
        alone = [t.detach().requires_grad_(m == n) for m, t in enumerate(leaves)]
        (grad,) = torch.autograd.grad(call(*alone), [alone[n]], problem.cotangents)
        assert torch.equal(grad, everything[n])
    total = [torch.zeros_like(t) for t in leaves]
    for n, cotangent in enumerate(problem.cotangents):
        grads = torch.autograd.grad(call(*leaves)[n], leaves, cotangent, allow_unused=True)
        total = [t if g is None else t + g for t, g in zip(total, grads, strict=True)]
    for t, g in zip(total, everything, strict=True):
        torch.testing.assert_close(t, g)


def test_saves_nothing_without_gradients():
    problem = make(Case("lstm", T=4, B=3))
    args = (problem.x, problem.h0, problem.c0, problem.weights, None, False)
    op = torch.ops.seq2seq_ext.lstm_sequence
    assert [t.numel() for t in op(*args, False)[3:]] == [0, 0]
    assert [t.shape for t in op(*args, True)[3:]] == [(1, 12, 28), (1, 12, 7)]
    x = problem.x.clone().requires_grad_()
    with pytest.raises(ValueError, match="save: expected True, as a gradient is needed"):
        op(x, *args[1:], False)


def test_saved_memory_is_as_documented():
    """The docstring's 20 B H bytes a step (float32) and 12 B H (bfloat16)."""
    for dtype, bytes_per in ((torch.float32, 20), (torch.bfloat16, 12)):
        problem = make(Case("lstm", dtype, T=4, B=3))
        saved = torch.ops.seq2seq_ext.lstm_sequence(
            problem.x, problem.h0, problem.c0, problem.weights, None, False, True
        )[3:]
        assert sum(t.nbytes for t in saved) == bytes_per * 4 * 3 * 7


def test_in_place_change_of_a_saved_tensor_is_seen():
    problem = make(Case("gru"))
    weights = [w.clone().requires_grad_() for w in problem.weights]
    y, _ = ops.gru_sequence(problem.x, problem.h0, weights)
    with torch.no_grad():
        weights[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_expanded_gradient(backend, cell):
    """y.sum() brings a gradient with stride 0."""
    problem = make(Case(cell, torch.float64, T=3, B=2, I=4, H=5)).to(device_of(backend))
    leaves, count = leaves_of(problem)
    ours = torch.autograd.grad(function_of(backend, problem, count)(*leaves)[0].sum(), leaves)
    theirs = torch.autograd.grad(function_of("reference", problem, count)(*leaves)[0].sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_past_the_end_do_not_count(backend, cell):
    problem = make(Case(cell, torch.float64, T=5, B=3, lengths="ragged", directions=2))
    results = solve(backend, problem)
    steps = torch.arange(5)[:, None]
    past = (steps >= problem.lengths)[..., None]
    dy, *rest = problem.cotangents
    dirty = [torch.where(past, torch.nan, dy), *rest]
    problem.cotangents = tuple(dirty)
    problem.x = torch.where(past, torch.nan, problem.x)
    again = solve(backend, problem)
    assert past.any()
    for name, value in results.items():
        assert torch.equal(value, again[name]), name
    assert results["dx"].masked_select(past).eq(0).all()
    assert results["y"].masked_select(past).eq(0).all()
