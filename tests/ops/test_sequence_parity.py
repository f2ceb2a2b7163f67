# SPDX-License-Identifier: MIT
"""Every backend of the sequence ops against the float64 oracle: outputs and all gradients."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

from tests.ops.cases import (
    BACKENDS,
    CELLS,
    DTYPES,
    FLOORS,
    Case,
    Error,
    check,
    error,
    make,
    solve,
)

# (T, B, I, H): each size is 1, even, odd or one off a vector's width somewhere.
SHAPES = [
    (1, 1, 1, 1),
    (7, 1, 63, 65),
    (20, 7, 65, 63),
    (5, 65, 7, 7),
    (3, 63, 1, 65),
    (9, 2, 7, 1),
]
OPTIONS = {
    "plain": {},
    "nobias": {"bias": False},
    "reverse": {"reverse": True, "lengths": "ragged"},
    "both": {"directions": 2, "lengths": "zeros"},
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        yield


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parity(backend, dtype, cell, options, shape):
    # The fewer roundings a problem holds, the more problems it takes to judge them.
    check(backend, Case(cell, dtype, *shape, **options), seeds=16 if shape == SHAPES[0] else 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("shape", "proj"), [((6, 3, 7, 9), 1), ((7, 5, 63, 65), 7)], ids=str)
def test_projection(backend, dtype, options, shape, proj):
    check(backend, Case("lstm", dtype, *shape, proj=proj, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_wide(cell, dtype):
    """Wider than one block. (The BLAS makes only bfloat16's weight gradients, at every size.)"""
    check(
        "cpu", Case(cell, dtype, T=4, B=33, I=500, H=129, directions=2, lengths="ragged"), seeds=1
    )


@functools.cache
def _long_peer(case: Case) -> tuple[dict[str, torch.Tensor], dict[str, Error]]:
    # The oracle here is torch.nn in float64: the reference would take longer than all else
    # together.
    problem = make(case)
    exact = solve("torch.nn", problem.to(torch.float64))
    peer = solve("torch.nn", problem)
    return exact, {n: error([peer[n]], [exact[n]], case.dtype) for n in exact}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_long(cell, dtype):
    """Errors do not grow faster with T than torch.nn's."""
    case = Case(cell, dtype, T=2048, B=2, I=8, H=16)
    exact, peers = _long_peer(case)
    ours = solve("cpu", make(case))
    for name, peer in peers.items():
        found = error([ours[name]], [exact[name]], dtype)
        assert found.within(peer, dtype), (name, found, peer)


def test_wide_cell_state():
    """A float32 cell state beside bfloat16 tensors: taken, and given back, unrounded."""
    from seq2seq_ext import ops, reference

    problem = make(Case("lstm", torch.bfloat16, T=6, B=3, I=5, H=9))
    c0 = torch.randn(1, 3, 9) * 0.5
    args = (problem.x, problem.h0, c0, problem.weights)
    exact = reference.lstm_sequence(
        *(t.double() for t in args[:3]), [w.double() for w in problem.weights]
    )
    _, _, c_n = ops.lstm_sequence(*args)
    assert c_n.dtype == torch.float32
    found = error([c_n], [exact[2]], torch.float32)
    rounded = error([c_n.bfloat16()], [exact[2]], torch.bfloat16)
    assert c_n.bfloat16().float().ne(c_n).any(), "not rounded to bfloat16"
    assert found.max * torch.finfo(torch.float32).eps < 2 * torch.finfo(torch.bfloat16).eps
    assert rounded.max < 2


def test_floors_do_not_hide_errors():
    """The judge objects to an error of a hundredth."""
    for dtype in DTYPES:
        exact = torch.linspace(-1, 1, 50, dtype=torch.float64)
        # bfloat16 itself errs by 1/256: an error that its torch.nn does not make either is 1/20.
        wrong = (exact * (1.05 if dtype == torch.bfloat16 else 1.01)).to(dtype)
        peer = error([exact.to(dtype)], [exact], dtype)
        assert peer.within(peer, dtype)
        assert not error([wrong], [exact], dtype).within(peer, dtype)
    assert set(FLOORS) == set(DTYPES)
