# SPDX-License-Identifier: MIT
"""Every backend of the sequence ops against the float64 oracle: outputs and all gradients."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch

from seq2seq_ext import ops
from tests.ops.cases import (
    BACKENDS,
    CELLS,
    DTYPES,
    FLOORS,
    KERNELS,
    Case,
    Error,
    check,
    device_of,
    error,
    forward,
    make,
    running,
    solve,
    with_dtypes,
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


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parity(backend, dtype, cell, options, shape):
    # The fewer roundings a problem holds, the more problems it takes to judge them.
    check(backend, Case(cell, dtype, *shape, **options), seeds=16 if shape == SHAPES[0] else 4)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("shape", "proj"), [((6, 3, 7, 9), 1), ((7, 5, 63, 65), 7)], ids=str)
def test_projection(backend, dtype, options, shape, proj):
    check(backend, Case("lstm", dtype, *shape, proj=proj, **options))


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("cell", CELLS)
def test_wide(backend, cell, dtype):
    """Wider than one block. (The BLAS makes only bfloat16's weight gradients, at every size.)"""
    case = Case(cell, dtype, T=4, B=33, I=500, H=129, directions=2, lengths="ragged")
    check(backend, case, seeds=1)


@functools.cache
def _long_peer(case: Case) -> tuple[dict[str, torch.Tensor], dict[str, Error]]:
    # The oracle here is torch.nn in float64: the reference would take longer than all else
    # together.
    problem = make(case)
    exact = solve("torch.nn", problem.to(torch.float64))
    peer = solve("torch.nn", problem)
    return exact, {n: error([peer[n]], [exact[n]], case.dtype) for n in exact}


LONG = [p for p in with_dtypes(KERNELS) if p.values[1] != torch.float64]


@pytest.mark.parametrize(("backend", "dtype"), LONG)
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_long(backend, cell, dtype):
    """Errors do not grow faster with T than torch.nn's."""
    steps = 500 if backend == "cuda_host" else 2048  # there a step takes a thousand times as long
    case = Case(cell, dtype, T=steps, B=2, I=8, H=16)
    exact, peers = _long_peer(case)
    ours = solve(backend, make(case))
    for name, peer in peers.items():
        found = error([ours[name]], [exact[name]], dtype)
        assert found.within(peer, dtype), (name, found, peer)


@pytest.mark.parametrize("backend", KERNELS)
def test_wide_cell_state(backend):
    """A float32 cell state beside bfloat16 tensors: taken, and given back, unrounded."""
    problem = make(Case("lstm", torch.bfloat16, T=6, B=3, I=5, H=9))
    wide = problem.to(torch.float64)
    wide.c0 = torch.randn(1, 3, 9, dtype=torch.float64).float().double() * 0.5
    problem.c0 = wide.c0.float()
    exact = forward("reference", wide, wide.x, wide.states, wide.weights)
    given = problem.to(device_of(backend))
    _, _, c_n = (r.cpu() for r in forward(backend, given, given.x, given.states, given.weights))
    assert c_n.dtype == torch.float32
    found = error([c_n], [exact[2]], torch.float32)
    rounded = error([c_n.bfloat16()], [exact[2]], torch.bfloat16)
    assert c_n.bfloat16().float().ne(c_n).any(), "not rounded to bfloat16"
    assert found.max * torch.finfo(torch.float32).eps < 2 * torch.finfo(torch.bfloat16).eps
    assert rounded.max < 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_are_what_they_say(backend, monkeypatch):
    """The ops of one backend, and none of another, are called."""
    problem, called = make(Case("gru")), []
    with running(backend) as module:
        if backend != "reference":
            op = ops.kernels.gru_sequence
            spy = lambda *args: called.append(op.name()) or op(*args)  # noqa: E731
            monkeypatch.setattr(ops.kernels, "gru_sequence", spy)
        given = problem.to(device_of(backend))
        y, _ = module.gru_sequence(given.x, given.h0, given.weights)
    namespace = {"cpu": "seq2seq_ext", "cuda": "seq2seq_ext"}.get(backend, f"seq2seq_ext_{backend}")
    assert called == ([] if backend == "reference" else [f"{namespace}::gru_sequence"])
    assert y.device.type == device_of(backend)


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
