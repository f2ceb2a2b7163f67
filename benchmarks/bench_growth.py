# SPDX-License-Identifier: MIT
"""How time and memory grow with T, B, H and V: ours and torch.nn's, float32.

One size grows, the others stay. The exponent is the slope of a straight line through the upper part
of the curve (sizes from the geometric middle on) in a log-log plot. Nothing may grow faster than T
or B; with H the products grow as H^2, with V the pick as V.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from . import bench_step, bench_train, marks
from .bench_sequence import GATES, twins
from .bench_sequence import Case as SequenceCase
from .ceilings import Ceilings, Work, sequence_work
from .common import OURS, Row, arguments, begin, compare, environment, must_agree, write_rows

Runs = Mapping[str, Callable[[], object]]
SIZES = {
    "T": (10, 30, 100, 300, 1000, 2500, 5000),
    "B": (1, 4, 16, 64, 256, 1024),
    "H": (64, 128, 256, 512, 1024, 2048),
    "V": (1000, 4000, 16000, 64000, 256000),
}
QUICK = {"T": (10, 100, 500), "B": (1, 16, 128), "H": (64, 256), "V": (1000, 16000)}
# What stays while another size grows.
FIXED = {"T": 20, "B": 4, "H": 256}
PICK = {"B": 16, "H": 256}


@dataclass(frozen=True)
class Series:
    op: str
    axis: str
    make: Callable[[int], tuple[Runs, Work]]


def layer(cell: str, training: bool, axis: str, size: int) -> tuple[Runs, Work]:
    T, B, H = {**FIXED, axis: size}.values()
    work = sequence_work(GATES[cell], T, B, H, H, 4, training=training)
    if training:
        case = SequenceCase("sequence", cell, "float32", T, B, H)
        return bench_train.contenders(case, compile=False)[0], work
    theirs, ours = twins(cell, H, "float32")
    x = torch.randn(T, B, H)

    def infer(module: torch.nn.Module) -> Callable[[], tuple]:
        def run() -> tuple:
            with torch.inference_mode():
                return module(x)

        return run

    runs = {"torch.nn": infer(theirs), OURS: infer(ours)}
    must_agree({name: (run()[0],) for name, run in runs.items()}, "torch.nn", "float32")
    return runs, work


def pick(words: int) -> tuple[Runs, Work]:
    step = bench_step.vocabulary(PICK["H"], PICK["B"], words)
    runs = bench_step.contenders(step, compile=False)
    return {"torch.nn": runs["torch"], OURS: runs[OURS]}, step.work


def series() -> Iterator[Series]:
    for cell in ("LSTM", "GRU"):
        for training in (False, True):
            op = f"{cell} {'training step' if training else 'inference'}"
            for axis in FIXED:
                yield Series(op, axis, functools.partial(layer, cell, training, axis))
    yield Series("vocabulary pick", "V", pick)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The slope over the upper part in a log-log plot; None where there is nothing to fit."""
    middle = math.sqrt(min(sizes) * max(sizes))
    points = [(s, v) for s, v in zip(sizes, values, strict=True) if s >= middle * (1 - 1e-9)]
    if len(points) < 2 or min(v for _, v in points) <= 0:
        return None
    x, y = zip(*[(math.log(s), math.log(v)) for s, v in points], strict=True)
    return statistics.linear_regression(x, y).slope


def measure(one: Series, sizes: Sequence[int], ceilings: Ceilings, *, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for size in sizes:
        runs, work = one.make(size)
        case = {"op": one.op, "axis": one.axis, "size": size, "dtype": "float32"}
        rows += compare(case, runs, ceilings, work, seconds=seconds, least=3)
    for name in dict.fromkeys(str(row["contender"]) for row in rows):
        mine = [row for row in rows if row["contender"] == name]
        for column, of in (("time_exponent", "median_ms"), ("memory_exponent", "peak_mb")):
            values = [row[of] for row in mine]
            fitted = None if "" in values else exponent(sizes, values)  # type: ignore[arg-type]
            for row in mine:
                row[column] = "" if fitted is None else fitted
    return rows


def show(rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(str(row["contender"]) for row in rows):
        mine = [row for row in rows if row["contender"] == name]
        last = mine[-1]
        times = " ".join(f"{row['median_ms']:.3g}" for row in mine)
        exponents = " ".join(
            f"{what}^{last[c]:.2f}" if last[c] != "" else f"{what} -"
            for what, c in (("time", "time_exponent"), ("memory", "memory_exponent"))
        )
        print(f"{last['op']:20}{last['axis']:3}{name:12}{exponents}; ms: {times}", flush=True)


def main(argv: list[str] | None = None) -> int:
    options = arguments(__doc__).parse_args(argv)
    ceilings = begin("growth", options)
    rows: list[Row] = []
    for one in series():
        sizes = (QUICK if options.quick else SIZES)[one.axis]
        measured = measure(one, sizes, ceilings, seconds=0.2 if options.quick else 0.6)
        show(measured)
        rows += measured
    where = environment()
    print(f"rows: {write_rows('growth_cpu', [{**row, **where} for row in rows])}")
    return marks.report("growth_cpu", rows, check=options.check, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
