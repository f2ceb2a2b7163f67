# SPDX-License-Identifier: MIT
"""Single steps under inference in float32: cells, attention and vocabulary pick, ours against
torch's, eager and by torch.compile (in its default mode, and with frozen weights)."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import seq2seq_ext.nn as fast
from seq2seq_ext import ops

from . import marks
from .ceilings import Ceilings, Work, step_work
from .common import (
    OURS,
    Row,
    arguments,
    begin,
    compare,
    environment,
    geometric_mean,
    must_agree,
    write_rows,
)
from .peers import attempt

SOURCE = 30
GATES = {"LSTMCell": 4, "GRUCell": 3}


@dataclass(frozen=True)
class Case:
    op: str
    V: int | str  # "": has none
    B: int
    H: int
    dtype: str = "float32"


@dataclass(frozen=True)
class Step:
    """theirs and ours: functions of `inputs`; the work, and the tensors that both shall give."""

    inputs: tuple[object, ...]
    theirs: Callable
    ours: Callable
    work: Work


def cases(*, quick: bool) -> Iterator[Case]:
    grid = ((1, 16), (256,)) if quick else ((1, 4, 16, 64), (256, 512))
    for batch, hidden in itertools.product(*grid):
        for cell in GATES:
            yield Case(cell, "", batch, hidden)
        yield Case("attention", "", batch, hidden)
        for words in (8000, 32000):
            yield Case("pick", words, batch, hidden)


def build(case: Case) -> Step:
    if case.op in GATES:
        return cell_step(case.op, case.H, case.B)
    if case.op == "attention":
        return attention(case.H, case.B)
    return vocabulary(case.H, case.B, int(case.V))


def cell_step(cell: str, hidden: int, batch: int) -> Step:
    theirs, ours = getattr(nn, cell)(hidden, hidden), getattr(fast, cell)(hidden, hidden)
    ours.load_state_dict(theirs.state_dict())
    x, h, c = torch.randn(3, batch, hidden)
    state = (h, c) if cell == "LSTMCell" else h
    outer = 2 * GATES[cell] * hidden
    return Step((x, state), theirs, ours, step_work(2 * batch * outer * hidden, 4 * outer * hidden))


def attention(size: int, batch: int) -> Step:
    query, keys = torch.randn(batch, size), torch.randn(batch, SOURCE, size)
    lengths = torch.randint(1, SOURCE + 1, (batch,))
    padding = torch.arange(SOURCE) >= lengths[:, None]

    def theirs(query: Tensor, keys: Tensor) -> Tensor:
        scores = torch.bmm(keys, query.unsqueeze(2)).squeeze(2) / math.sqrt(size)
        weights = scores.masked_fill(padding, -math.inf).softmax(1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)

    def ours(query: Tensor, keys: Tensor) -> Tensor:
        return ops.attention_step(query, keys, keys, lengths=lengths, scale=size**-0.5)[0]

    filled = int(lengths.sum())  # keys are the values
    return Step((query, keys), theirs, ours, step_work(4 * filled * size, 4 * filled * size))


def vocabulary(hidden: int, batch: int, words: int) -> Step:
    # Logits of spread 1: the first word's log-probability is then far from 0, where the comparison
    # of results would be one of rounding errors.
    state, bias = torch.randn(batch, hidden), torch.randn(words)
    weight = torch.randn(words, hidden) / hidden**0.5

    def theirs(state: Tensor) -> Tensor:
        return torch.addmm(bias, state, weight.t()).log_softmax(1).max(1)[0]

    def ours(state: Tensor) -> Tensor:
        return ops.vocab_pick(state, weight, bias)[0][:, 0]

    work = step_work(2 * batch * words * hidden, 4 * words * (hidden + 1))
    return Step((state,), theirs, ours, work)


def contenders(step: Step, *, compile: bool) -> dict[str, Callable[[], object]]:
    def run(function: Callable) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return function(*step.inputs)

        return call

    found = {"torch": run(step.theirs)}
    if compile:
        for name, options in (("", {}), (", frozen", {"options": {"freezing": True}})):
            made = torch.compile(step.theirs, dynamic=False, **options)
            found |= attempt(f"torch.compile{name}", lambda made=made: run(made))  # type: ignore[misc]
    return {**found, OURS: run(step.ours)}


def tensors(result: object) -> tuple[object, ...]:
    return result if isinstance(result, tuple) else (result,)


def measure(case: Case, ceilings: Ceilings, *, seconds: float, compile: bool = True) -> list[Row]:
    step = build(case)
    runs = contenders(step, compile=compile)
    must_agree({name: tensors(run()) for name, run in runs.items()}, "torch", case.dtype)
    rows = compare(vars(case), runs, ceilings, step.work, seconds=seconds, base="torch")
    torch._dynamo.reset()
    return rows


def show(rows: list[Row]) -> None:
    mine = next(row for row in rows if row["contender"] == OURS)
    op = f"{mine['op']} {mine['V']}"
    times = "  ".join(f"{row['contender']} {float(row['median_ms']) * 1e3:.3g}" for row in rows)  # type: ignore[arg-type]
    print(
        f"{op:14}{mine['B']:4}{mine['H']:5}  {mine['speedup']:5.2f}x torch "
        f"{mine['speedup_best']:5.2f}x {mine['best_peer']}, {mine['roofline']:4.0%} of roofline;"
        f" us: {times}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    options = arguments(__doc__).parse_args(argv)
    ceilings = begin("step", options)
    rows: list[Row] = []
    for case in cases(quick=options.quick):
        measured = measure(
            case, ceilings, seconds=0.4 if options.quick else 1.5, compile=not options.quick
        )
        show(measured)
        rows += measured
    where = environment()
    for op in dict.fromkeys(row["op"] for row in rows):
        ours = [row for row in rows if row["op"] == op and row["contender"] == OURS]
        mean = geometric_mean([float(row["speedup"]) for row in ours])  # type: ignore[arg-type]
        print(f"{op}: geometric mean {mean:.2f}x torch")
    print(f"rows: {write_rows('step_cpu', [{**row, **where} for row in rows])}")
    return marks.report("step_cpu", rows, check=options.check, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
