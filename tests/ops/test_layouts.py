# SPDX-License-Identifier: MIT
"""Strides, empty batches, zero lengths: the corners of the input."""

from __future__ import annotations

import pytest
import torch

from seq2seq_ext import ops
from tests.ops.cases import (
    BACKENDS,
    CELLS,
    KERNELS,
    Case,
    device_of,
    forward,
    make,
    solve,
    with_dtypes,
)


def scattered(tensor):
    """The same values with a gap after every element."""
    wide = torch.full((*tensor.shape, 2), torch.nan, dtype=tensor.dtype, device=tensor.device)
    wide[..., 0] = tensor
    return wide[..., 0]


LAYOUTS = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "scattered": scattered,
    "slice": lambda x: torch.cat([torch.full_like(x, torch.nan), x], dim=-1)[..., x.shape[-1] :],
    "every other step": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], 1).flatten(0, 1)[
        ::2
    ],
    "transposed": lambda x: x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
}


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (1, 3, 5, 6), (4, 1, 5, 6), (4, 3, 1, 6)], ids=str)
def test_strides(backend, cell, layout, shape):
    problem = make(Case(cell, torch.float32, *shape, directions=2, lengths="ragged"))
    expected = solve(backend, problem)
    problem = problem.to(device_of(backend))
    problem.x = layout(problem.x)
    dy, *rest = problem.cotangents
    problem.cotangents = (layout(dy), *(scattered(r) for r in rest))
    problem.h0 = scattered(problem.h0)
    if problem.c0 is not None:
        problem.c0 = scattered(problem.c0)
    problem.weights = [scattered(w) for w in problem.weights]
    x = problem.x.detach().requires_grad_()
    states = [s.detach().requires_grad_() for s in problem.states]
    weights = [w.detach().requires_grad_() for w in problem.weights]
    outputs = forward(backend, problem, x, states, weights)
    grads = torch.autograd.grad(outputs, [x, *states, *weights], problem.cotangents)
    for value, exact in zip((*outputs, *grads), expected.values(), strict=True):
        assert torch.equal(value.cpu(), exact)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.usefixtures("module")
def test_overlapping_input(backend):
    """Expanded and sliding-window inputs are read like their copies."""
    weights = make(Case("gru", I=5, H=6)).to(device_of(backend)).weights
    h0 = torch.randn(1, 3, 6)
    window = torch.randn(30).as_strided((4, 3, 5), (2, 3, 1))
    for x in (torch.randn(5).expand(4, 3, 5), torch.randn(4, 1, 5).expand(4, 3, 5), window):
        y, h_n = ops.gru_sequence(x, h0, weights)
        expected = ops.gru_sequence(x.clone(), h0, weights)
        assert torch.equal(y, expected[0])
        assert torch.equal(h_n, expected[1])


def test_batch_first_is_not_copied():
    """Only y, the states and what the kernel keeps are allocated, not another x."""
    T, B, width = 64, 8, 4096
    problem = make(Case("tanh", T=T, B=B, I=width, H=1))
    x = torch.randn(B, T, width).transpose(0, 1)
    with torch.profiler.profile(profile_memory=True) as profile:
        ops.rnn_sequence(x, problem.h0, problem.weights)
    assert "aten::contiguous" not in {event.key for event in profile.key_averages()}
    assert "aten::clone" not in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.usefixtures("module")
def test_decode_strides(backend, dtype):
    problem = make(Case("lstm", dtype, I=5, H=6)).to(device_of(backend))
    weights = [scattered(w) for w in problem.weights]
    x, h, c = (torch.randn(3, n).to(dtype) for n in (5, 6, 6))
    with torch.no_grad():
        expected = ops.lstm_step(x, h, c, [w.contiguous() for w in weights])
        for layout in (
            scattered,
            lambda t: t.t().contiguous().t(),
            lambda t: t.repeat(1, 2)[:, : t.shape[1]],
        ):
            result = ops.lstm_step(layout(x), layout(h), layout(c), weights)
            assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        row = ops.lstm_step(x[:1].expand(3, 5), h, c, weights)
        copied = ops.lstm_step(x[:1].repeat(3, 1), h, c, weights)
        assert all(torch.equal(a, b) for a, b in zip(row, copied, strict=True))
    query, keys, values = (torch.randn(s).to(dtype) for s in ((3, 4), (3, 7, 4), (3, 7, 5)))
    expected = ops.attention_step(query, keys, values)
    time_major = (t.transpose(0, 1).contiguous().transpose(0, 1) for t in (keys, values))
    for k, v in ((scattered(keys), scattered(values)), tuple(time_major)):
        result = ops.attention_step(scattered(query), k, v)
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
    hidden, weight, bias = (torch.randn(s).to(dtype) for s in ((3, 4), (9, 4), (9,)))
    expected = ops.vocab_pick(hidden, weight, bias, k=2)
    result = ops.vocab_pick(scattered(hidden), scattered(weight), scattered(bias), k=2)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_empty_batch(backend, cell):
    problem = make(Case(cell, B=0, lengths="ragged", directions=2))
    results = solve(backend, problem)
    assert results["y"].shape == (5, 0, 14)
    assert results["h_n"].shape == (2, 0, 7)
    assert results["dx"].shape == (5, 0, 7)
    for n, weight in enumerate(problem.weights):
        assert torch.equal(results[f"dweights[{n}]"], torch.zeros_like(weight))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.usefixtures("module")
def test_empty_batch_decoding(backend):
    weights = make(Case("lstm", I=5, H=6)).to(device_of(backend)).weights
    with torch.no_grad():
        h, c = ops.lstm_step(torch.ones(0, 5), torch.ones(0, 6), torch.ones(0, 6), weights)
    assert h.shape == c.shape == (0, 6)
    context, attention = ops.attention_step(
        torch.ones(0, 4), torch.ones(0, 3, 4), torch.ones(0, 3, 2)
    )
    assert (context.shape, attention.shape) == ((0, 2), (0, 3))
    log_probs, indices = ops.vocab_pick(torch.ones(0, 4), torch.ones(9, 4), k=2)
    assert log_probs.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_all_lengths_zero(backend, cell):
    """The states pass through, and so do their gradients; nothing reaches the weights."""
    problem = make(Case(cell, T=3, B=2, directions=2))
    problem.lengths = torch.zeros(2, dtype=torch.int64)
    results = solve(backend, problem)
    assert torch.equal(results["h_n"], problem.h0)
    assert torch.equal(results["dh0"], problem.cotangents[1])
    if cell == "lstm":
        assert torch.equal(results["c_n"], problem.c0)
        assert torch.equal(results["dc0"], problem.cotangents[2])
    for name, value in results.items():
        if name == "y" or name == "dx" or name.startswith("dweights"):
            assert value.eq(0).all(), name


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_full_lengths_are_no_lengths(backend, cell):
    case = Case(cell, T=6, B=4, directions=2, lengths="full")
    problem = make(case)
    results = solve(backend, problem)
    problem.lengths = None
    for name, value in solve(backend, problem).items():
        assert torch.equal(value, results[name]), name


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_reverse_is_forward_over_reversed_time(backend, cell):
    problem = make(Case(cell, T=6, B=3, reverse=True)).to(device_of(backend))
    y, *finals = forward(backend, problem, problem.x, problem.states, problem.weights)
    other = make(Case(cell, T=6, B=3))
    flipped, *others = forward(backend, other, problem.x.flip(0), problem.states, problem.weights)
    assert torch.equal(y, flipped.flip(0))
    assert all(torch.equal(a, b) for a, b in zip(finals, others, strict=True))
