# SPDX-License-Identifier: MIT
"""A training step of one recurrent layer: forward, and backward to the input and every parameter.

Set "sequence": one direction, T = 50, no padding. Set "lengths": both directions, lengths uniform
in 5..T; torch.nn packs, computes and pads (PackedSequence), ours takes the lengths. Same weights,
same random inputs; outputs and gradients are compared first. Peers: torch.nn, eager and by
torch.compile (which leaves the layer to the eager kernels).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from . import marks
from .bench_sequence import CELLS, GATES, Case, show, twins
from .ceilings import Ceilings, sequence_work
from .common import OURS, Row, arguments, begin, compare, environment, must_agree, write_rows
from .peers import attempt

STEPS, SHORTEST = 50, 5
Step = Callable[[], tuple[Tensor, ...]]


def cases(dtypes: list[str], *, quick: bool) -> Iterator[Case]:
    hidden, batch = ((256,), (1, 16)) if quick else ((256, 512, 1024), (1, 16, 64))
    for dtype in dtypes:
        for cell, h, b in itertools.product(CELLS, hidden, batch):
            yield Case("sequence", cell, dtype, STEPS, b, h)
        for cell, h, b in itertools.product(CELLS, hidden, batch[1:]):
            yield Case("lengths", cell, dtype, STEPS, b, h)


def padded(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)[0]


def packed(module: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    made = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(module(made)[0], total_length=len(x))[0]


def with_lengths(module: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    return module(x, lengths=lengths)[0]


def contenders(case: Case, *, compile: bool) -> tuple[dict[str, Step], Tensor]:
    """Each gives the output and the gradients. And the lengths: T where none is given."""
    variable = case.set == "lengths"
    theirs, ours = twins(case.cell, case.H, case.dtype, bidirectional=variable)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(case.T, case.B, case.H).to(dtype).requires_grad_()
    dy = torch.randn(case.T, case.B, case.H * (2 if variable else 1)).to(dtype)
    lengths = torch.full((case.B,), case.T)
    if variable:
        lengths = torch.randint(SHORTEST, case.T + 1, (case.B,))
        lengths[0] = case.T

    def step(forward: Callable[..., Tensor], module: nn.Module, *more: Tensor) -> Step:
        parameters = list(module.parameters())

        def run() -> tuple[Tensor, ...]:
            y = forward(module, x, *more)
            return y, *torch.autograd.grad(y, [x, *parameters], dy)

        return run

    if variable:
        return {
            "torch.nn": step(packed, theirs, lengths),
            OURS: step(with_lengths, ours, lengths),
        }, lengths
    found = {"torch.nn": step(padded, theirs)}
    if compile:
        made = torch.compile(theirs, dynamic=False)
        found |= attempt("torch.compile", lambda: step(padded, made))  # type: ignore[arg-type]
    return {**found, OURS: step(padded, ours)}, lengths


def measure(case: Case, ceilings: Ceilings, *, seconds: float, compile: bool = True) -> list[Row]:
    steps, lengths = contenders(case, compile=compile)
    must_agree({name: run() for name, run in steps.items()}, "torch.nn", case.dtype)
    size = getattr(torch, case.dtype).itemsize
    work = sequence_work(
        GATES[case.cell],
        case.T,
        case.B,
        case.H,
        case.H,
        size,
        training=True,
        directions=2 if case.set == "lengths" else 1,
        filled=float(lengths.sum()) / (case.T * case.B),
    )
    rows = compare(vars(case), steps, ceilings, work, seconds=seconds)
    torch._dynamo.reset()
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    options = parser.parse_args(argv)
    ceilings = begin("train", options)
    rows: list[Row] = []
    for case in cases(options.dtypes, quick=options.quick):
        measured = measure(
            case, ceilings, seconds=0.5 if options.quick else 3.0, compile=not options.quick
        )
        show(measured)
        rows += measured
    where = environment()
    print(f"rows: {write_rows('train_cpu', [{**row, **where} for row in rows])}")
    return marks.report("train_cpu", rows, check=options.check, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
