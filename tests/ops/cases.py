# SPDX-License-Identifier: MIT
"""Problems for the sequence ops: random inputs, the backends that solve them, and how errors are
judged."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq_ext import _cross_entropy, _registration, _routing, ops, reference

# What can be put to the test. "cuda_host": the CUDA kernels, run on CPU tensors by host execution.
KERNELS = ("cpu", "cuda_host", pytest.param("cuda", marks=pytest.mark.cuda))
BACKENDS = ("reference", *KERNELS)
CELLS = ("lstm", "gru", "tanh", "relu")
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
ROOT = Path(__file__).resolve().parents[2]


def with_dtypes(backends: Sequence[Any] = BACKENDS) -> list[Any]:
    """Parameters (backend, dtype), to every backend the dtypes that it computes in itself: the CPU
    computes float16 in float32."""
    found = []
    for backend in backends:
        plain = isinstance(backend, str)
        name, marks = (backend, ()) if plain else (backend.values[0], backend.marks)
        for dtype in DTYPES:
            if dtype != torch.float16 or name.startswith("cuda"):
                label = f"{name}-{dtype_name(dtype)}"
                found.append(pytest.param(name, dtype, marks=marks, id=label))
    return found


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@functools.cache
def _cuda_host_ops() -> Any:
    folder = os.environ.get("SEQ2SEQ_EXT_HOST_DIR", str(ROOT / "build" / "host"))
    library = Path(folder) / "cuda_host_ops.so"
    if not library.exists():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("host execution is tested on Linux x86-64")
        pytest.fail(f"no {library}; `make host` builds it")
    torch.ops.load_library(library)
    return _registration.register("seq2seq_ext_cuda_host")


@contextlib.contextmanager
def running(backend: str) -> Iterator[ModuleType]:
    """The module to call, `ops` or `reference`. Meanwhile `ops` runs the backend's kernels, and new
    tensors are made on its device."""
    if backend == "reference":
        yield reference
    elif backend == "cuda":
        with torch.device("cuda"):
            yield ops
    elif backend == "cuda_host":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ops, "kernels", _cuda_host_ops())
            patch.setattr(ops, "must_cast", _routing._autocasts)  # these kernels take float16
            patch.setattr(_cross_entropy, "KEPT_BYTES", 0)  # ... and keep no logits
            yield ops
    else:
        yield ops


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


@dataclass(frozen=True)
class Case:
    """One layer; `lengths`: None, "full", "ragged" (1 .. T) or "zeros" (0 .. T)."""

    cell: str = "lstm"
    dtype: torch.dtype = torch.float32
    T: int = 5
    B: int = 3
    I: int = 7  # noqa: E741
    H: int = 7
    directions: int = 1
    reverse: bool = False
    bias: bool = True
    proj: int = 0
    lengths: str | None = None

    def __str__(self) -> str:
        dtype = dtype_name(self.dtype)
        extras = f"-D{self.directions}" + "-reverse" * self.reverse + "-nobias" * (not self.bias)
        extras += f"-proj{self.proj}" * bool(self.proj) + (
            f"-{self.lengths}" if self.lengths else ""
        )
        return f"{self.cell}-{dtype}-T{self.T}-B{self.B}-I{self.I}-H{self.H}{extras}"

    @property
    def jumps(self) -> bool:
        """Whether 16-bit rounding moves a sum across the jump of relu's derivative now and then:
        then a gradient is off by a whole step, for torch.nn as for us, and errors say nothing."""
        return self.cell == "relu" and self.dtype.itemsize == 2

    @property
    def outputs(self) -> int:
        """P."""
        return self.proj or self.H


@dataclass
class Problem:
    case: Case
    x: Tensor
    h0: Tensor
    c0: Tensor | None
    weights: list[Tensor]
    lengths: Tensor | None
    cotangents: tuple[Tensor, ...]  # of y, h_n, [c_n]

    def to(self, target: torch.dtype | str) -> Problem:
        """In another dtype, or on another device."""
        lengths = self.lengths
        return replace(
            self,
            x=self.x.to(target),
            h0=self.h0.to(target),
            c0=None if self.c0 is None else self.c0.to(target),
            weights=[w.to(target) for w in self.weights],
            lengths=lengths.to(target)
            if lengths is not None and isinstance(target, str)
            else lengths,
            cotangents=tuple(g.to(target) for g in self.cotangents),
        )

    @property
    def states(self) -> list[Tensor]:
        return [s for s in (self.h0, self.c0) if s is not None]


def weight_shapes(case: Case) -> list[tuple[int, ...]]:
    gates = {"lstm": 4, "gru": 3}.get(case.cell, 1)
    shapes: list[tuple[int, ...]] = [(gates * case.H, case.I), (gates * case.H, case.outputs)]
    if case.bias:
        shapes += [(gates * case.H,)] * 2
    if case.proj:
        shapes.append((case.proj, case.H))
    return shapes * case.directions


def make(case: Case, seed: int = 0) -> Problem:
    """Inputs drawn in the case's dtype, so that every backend and the oracle see the same
    numbers. On the CPU, wherever new tensors are made."""
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = {"generator": generator, "device": "cpu"}

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, dtype=torch.float64, **drawn) * scale).to(case.dtype)

    T, B, D = case.T, case.B, case.directions
    lengths = None
    if case.lengths is not None:
        low = {"full": T, "ragged": 1, "zeros": 0}[case.lengths]
        lengths = torch.randint(low, T + 1, (B,), **drawn)
        if case.lengths == "zeros" and B:
            lengths[0] = 0
    lstm = case.cell == "lstm"
    # torch.nn's own initialisation; less for relu, whose state would grow without bound.
    scale = case.H**-0.5 * (0.2 if case.cell == "relu" else 1.0)
    weights = [normal(*shape, scale=scale) for shape in weight_shapes(case)]
    if case.jumps and case.bias:  # every unit well on one side of the jump
        for b_ih in weights[2::4]:
            b_ih.copy_(b_ih.sign() * 6)
    return Problem(
        case,
        normal(T, B, case.I),
        normal(D, B, case.outputs, scale=0.5),
        normal(D, B, case.H, scale=0.5) if lstm else None,
        weights,
        lengths,
        (
            normal(T, B, D * case.outputs),
            normal(D, B, case.outputs),
            *([normal(D, B, case.H)] * lstm),
        ),
    )


def forward(
    backend: str,
    problem: Problem,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The tensors lie on the backend's device, and so do the results."""
    case, lengths = problem.case, problem.lengths
    lengths = None if lengths is None else lengths.to(x.device)
    if backend == "torch.nn":
        return torch_nn(case, x, states, weights, lengths)
    with running(backend) as module:
        if case.cell == "lstm":
            options = {"lengths": lengths, "reverse": case.reverse}
            return module.lstm_sequence(x, *states, weights, **options)
        if case.cell == "gru":
            return module.gru_sequence(x, *states, weights, lengths=lengths, reverse=case.reverse)
        options = {"nonlinearity": case.cell, "lengths": lengths, "reverse": case.reverse}
        return module.rnn_sequence(x, *states, weights, **options)


def torch_nn(
    case: Case,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
) -> tuple[Tensor, ...]:
    """torch.nn's functional layer. It knows no reverse-only direction and no length 0."""
    assert not case.reverse
    name = {"tanh": "rnn_tanh", "relu": "rnn_relu"}.get(case.cell, case.cell)
    layer = getattr(torch._VF, name)
    hx = tuple(states) if case.cell == "lstm" else states[0]
    tail = (list(weights), case.bias, 1, 0.0, False, case.directions == 2)
    if lengths is None:
        return layer(x, hx, *tail, False)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    order = packed.sorted_indices
    assert order is not None
    sorted_states = tuple(s.index_select(1, order) for s in states)
    hx = sorted_states if case.cell == "lstm" else sorted_states[0]
    data, *finals = layer(packed.data, packed.batch_sizes, hx, *tail)
    packed = torch.nn.utils.rnn.PackedSequence(
        data, packed.batch_sizes, order, packed.unsorted_indices
    )
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, total_length=case.T)
    return (y, *(f.index_select(1, packed.unsorted_indices) for f in finals))


def solve(backend: str, problem: Problem) -> dict[str, Tensor]:
    """All outputs and all gradients, by name, on the CPU."""
    given = problem.to(device_of(backend))
    x = given.x.detach().clone().requires_grad_()
    states = [s.detach().clone().requires_grad_() for s in given.states]
    weights = [w.detach().clone().requires_grad_() for w in given.weights]
    outputs = forward(backend, given, x, states, weights)
    grads = torch.autograd.grad(outputs, [x, *states, *weights], given.cotangents)
    names = ["y", "h_n", "c_n"][: len(outputs)]
    results = dict(zip(names, outputs, strict=True))
    grad_names = ["dx", "dh0", "dc0"][: 1 + len(states)]
    grad_names += [f"dweights[{n}]" for n in range(len(weights))]
    results |= dict(zip(grad_names, grads, strict=True))
    return {name: value.detach().cpu() for name, value in results.items()}


def oracle(problem: Problem) -> dict[str, Tensor]:
    return solve("reference", problem.to(torch.float64))


# ------------------------------------------------------------------------------------------------
# The rule of numerics: our error against the float64 oracle, max and mean, is at most 1.5 times
# that of torch.nn in the same dtype. Errors are pooled over a few seeds and counted in the dtype's
# epsilon times the exact result's largest magnitude. At sizes like 1 and 7 a tensor holds a handful
# of roundings, and the ratio of two such handfuls is luck; torch.nn may even be exact. Hence the
# floors: a few roundings in float32, the one of the result in 16 bits; the mean's falls as chance
# does. In float64 there is no wider oracle: torch.nn's error against it may read 0 while the oracle
# is as wrong as ours, so the floor is the oracle's own noise, and the mean's stops falling at 2.

FACTOR = 1.5
FLOORS = {torch.float32: 4.0, torch.bfloat16: 1.0, torch.float16: 1.0, torch.float64: 32.0}


@dataclass(frozen=True)
class Error:
    max: float
    mean: float
    count: int  # of elements

    def within(self, peer: Error, dtype: torch.dtype) -> bool:
        floor = FLOORS[dtype]
        chance = max(self.count, 1) ** -0.5
        floor_mean = floor * (max(chance, 1 / 16) if dtype == torch.float64 else chance)
        return self.max <= FACTOR * peer.max + floor and self.mean <= (
            FACTOR * peer.mean + floor_mean
        )


def error(values: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> Error:
    """Of one result, over several problems."""
    assert all(v.shape == e.shape and v.dtype == dtype for v, e in zip(values, exact, strict=True))
    flat = torch.cat([e.flatten() for e in exact])
    if flat.numel() == 0:
        return Error(0.0, 0.0, 0)
    difference = (torch.cat([v.flatten().double() for v in values]) - flat).abs()
    assert torch.isfinite(difference).all()
    unit = torch.finfo(dtype).eps * (flat.abs().max().item() or 1.0)
    return Error(difference.max().item() / unit, difference.mean().item() / unit, flat.numel())


@functools.lru_cache(maxsize=64)
def exact_of(case: Case, seed: int) -> dict[str, Tensor]:
    """What every backend is judged by; the tests of a case follow each other."""
    return oracle(make(case, seed))


def errors(
    backend: str, problems: Sequence[Problem], exact: Sequence[dict[str, Tensor]]
) -> dict[str, Error]:
    """Of every output and gradient."""
    results = [solve(backend, p) for p in problems]
    dtype = problems[0].case.dtype
    return {
        name: error([r[name] for r in results], [e[name] for e in exact], dtype)
        for name in exact[0]
    }


def flipped(tensor: Tensor, lengths: Tensor | None) -> Tensor:
    """(T, B, ...) with each row's valid steps in reverse order."""
    steps = torch.arange(len(tensor))[:, None].expand(-1, tensor.shape[1])
    ends = torch.full_like(steps, len(tensor)) if lengths is None else lengths.expand_as(steps)
    order = torch.where(steps < ends, ends - 1 - steps, steps)
    return tensor.gather(0, order[..., None].expand_as(tensor))


def as_peer(problem: Problem) -> Problem:
    """The nearest problem that torch.nn can solve: no row empty, and forward: a reversed direction
    is the forward one over reversed time."""
    lengths = problem.lengths
    x, (dy, *dstates) = problem.x, problem.cotangents
    if problem.case.reverse:
        x, dy = flipped(x, lengths), flipped(dy, lengths)
    return replace(
        problem,
        case=replace(problem.case, reverse=False),
        x=x,
        lengths=None if lengths is None else lengths.clamp(min=1),
        cotangents=(dy, *dstates),
    )


@functools.cache
def peer_errors(case: Case, seeds: int) -> dict[str, Error]:
    """torch.nn's own errors, in the case's dtype."""
    problems = [as_peer(make(case, seed)) for seed in range(seeds)]
    return errors("torch.nn", problems, [oracle(p) for p in problems])


def check(backend: str, case: Case, seeds: int = 4) -> None:
    exact = [exact_of(case, seed) for seed in range(seeds)]
    ours = errors(backend, [make(case, seed) for seed in range(seeds)], exact)
    peers = peer_errors(case, seeds)
    bad = {
        name: (found, peers[name])
        for name, found in ours.items()
        if not found.within(peers[name], case.dtype)
        and not (case.jumps and not case.bias and name.startswith("d"))
    }
    assert not bad, f"(ours, torch.nn's): {bad}"
