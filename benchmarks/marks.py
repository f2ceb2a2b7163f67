# SPDX-License-Identifier: MIT
"""The stated marks as data, and what the stored rows say of them: `python -m benchmarks.marks`.

A mark is about ours in some rows: a speed-up over a peer in the same dtype (or over the fastest
peer in float32), as the geometric mean of all rows or in the worst of them. Beside it stands what
could be reached if every row ran at SHARE of the roofline; where that is under the mark, the
roofline forbids it. A missed mark is missed all the same. A mark of which rows are lacking is not
measured, but for `--quick` runs, which are judged by the rows they have.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .common import OURS, arguments, geometric_mean, keep_apart, results_folder

SHARE = 0.9  # of the roofline: what the best of kernels reach
Row = Mapping[str, object]


@dataclass(frozen=True)
class Mark:
    what: str
    file: str
    over: str  # "torch.nn", "best peer", "best float32 peer"
    value: float
    worst: bool = False  # of every row, else of the geometric mean
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a row for each combination


Texts = Mapping[str, tuple[str, ...]]


def _mark(
    what: str,
    file: str,
    over: str,
    value: float,
    where: Texts,
    sizes: Texts,
    *,
    worst: bool = False,
) -> Mark:
    return Mark(what, file, over, value, worst, where, sizes)


_CELLS = {"cell": ("LSTM", "GRU")}
_LAYERS = {**_CELLS, "H": ("256", "512", "1024"), "B": ("1", "16", "64")}
_RAGGED = {**_LAYERS, "B": ("16", "64")}
_SMALL = {**_CELLS, "H": ("64", "128")}
_STEPS = {"op": ("LSTMCell", "GRUCell"), "H": ("256", "512"), "B": ("1", "4", "16")}
_FP32, _BF16 = ({"set": ("sequence",), "dtype": (d,)} for d in ("float32", "bfloat16"))
_FP32_RAGGED, _FP32_SMALL = ({**_FP32, "set": (kind,)} for kind in ("lengths", "small"))
MARKS = (
    _mark("inference float32", "sequence_cpu", "best peer", 0.95, _FP32, _LAYERS, worst=True),
    _mark("inference float32", "sequence_cpu", "best peer", 1.25, _FP32, _LAYERS),
    _mark("inference float32", "sequence_cpu", "torch.nn", 1.6, _FP32, _LAYERS),
    _mark("inference bfloat16", "sequence_cpu", "best float32 peer", 1.8, _BF16, _LAYERS),
    _mark("inference bfloat16", "sequence_cpu", "torch.nn", 1.25, _BF16, _LAYERS),
    _mark("training step float32", "train_cpu", "torch.nn", 1.0, _FP32, _LAYERS, worst=True),
    _mark("training step float32", "train_cpu", "torch.nn", 1.5, _FP32, _LAYERS),
    _mark(
        "training step, bidirectional, lengths 5..T",
        "train_cpu",
        "torch.nn",
        2.0,
        _FP32_RAGGED,
        _RAGGED,
    ),
    _mark("single step (cells), B 1..16", "step_cpu", "torch.nn", 1.5, _STEPS, _STEPS),
    _mark("H 64 and 128, B = 1, T = 200", "sequence_cpu", "torch.nn", 2.0, _FP32_SMALL, _SMALL),
    _mark(
        "H 64 and 128, B = 1, T = 200",
        "sequence_cpu",
        "best peer",
        1.0,
        _FP32_SMALL,
        _SMALL,
        worst=True,
    ),
)
# Time and memory over T and B: at most their power of this. Allowed over 1 is what a working set
# costs that leaves a cache on the way.
GROWTH = 1.1
GROWS = {"T": ("10", "5000"), "B": ("1", "1024"), "H": ("64", "2048"), "V": ("1000", "256000")}


def at_roofline(speedup: float, roofline: float) -> float:
    """What a speed-up would be at SHARE of the roofline; roofline: the share that it is at."""
    return SHARE * speedup / roofline


@dataclass(frozen=True)
class Verdict:
    mark: Mark
    reached: float
    worst: float
    at_roofline: float  # the figure with every row at SHARE of the roofline
    forbidden: bool  # the roofline does not allow the mark

    @property
    def met(self) -> bool:
        return self.reached >= self.mark.value


def key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[k]) for k in ("set", "cell", "op", "T", "B", "H") if k in row)


def chosen(mark: Mark, rows: Sequence[Row]) -> list[Row]:
    """Ours in the rows that the mark is about."""
    return [
        row
        for row in rows
        if row["contender"] == OURS and all(str(row[k]) in v for k, v in mark.where.items())
    ]


def speedups(mark: Mark, rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Per row: the speed-up, and what it would be at SHARE of the roofline."""
    best32 = {
        key(row): float(row["speedup_best"]) * float(row["median_ms"])  # type: ignore[arg-type]
        for row in rows
        if row["contender"] == OURS and row["dtype"] == "float32"
    }
    found = []
    for row in chosen(mark, rows):
        time, floor = float(row["median_ms"]), float(row["roofline_ms"])  # type: ignore[arg-type]
        if mark.over == "best float32 peer":
            if key(row) not in best32:
                continue
            peer = best32[key(row)]
        else:
            peer = time * float(row["speedup" if mark.over == "torch.nn" else "speedup_best"])  # type: ignore[arg-type]
        found.append((peer / time, SHARE * peer / floor))
    return found


def lacking(mark: Mark, rows: Sequence[Row]) -> list[str]:
    """The sizes that a mark is about and no row of ours is of."""
    there = {tuple(str(row[k]) for k in mark.sizes) for row in chosen(mark, rows)}
    wanted = itertools.product(*mark.sizes.values())
    return [" ".join(sizes) for sizes in wanted if sizes and sizes not in there]


def verdict(mark: Mark, rows: Sequence[Row], *, quick: bool = False) -> Verdict | None:
    """None where rows are lacking; with `quick`, where there is none."""
    found = speedups(mark, rows)
    if not found or (not quick and lacking(mark, rows)):
        return None
    reached, possible = ([pair[i] for pair in found] for i in (0, 1))
    if not mark.worst:
        mean, limit = geometric_mean(reached), geometric_mean(possible)
        return Verdict(mark, mean, min(reached), limit, limit < mark.value)
    missed = [limit for speedup, limit in found if speedup < mark.value]
    return Verdict(
        mark,
        min(reached),
        min(reached),
        min(possible),
        bool(missed) and all(limit < mark.value for limit in missed),
    )


def say(verdict: Verdict) -> str:
    mark = verdict.mark
    outcome = "met" if verdict.met else "MISSED"
    if not verdict.met and verdict.forbidden:
        outcome += ", the roofline binds"
    kind = "worst row" if mark.worst else "geometric mean"
    return (
        f"{mark.what}: {kind} over {mark.over} {verdict.reached:.2f}x, mark {mark.value:g}x: "
        f"{outcome} (worst {verdict.worst:.2f}x; at {SHARE:.0%} of the roofline "
        f"{verdict.at_roofline:.2f}x)"
    )


def growth_missed(rows: Sequence[Row]) -> list[str]:
    """Where time or memory of ours grows faster than T or B."""
    found = {
        f"{row['op']} over {row['axis']}: {what} grows as {row['axis']}^{float(row[column]):.2f}"  # type: ignore[arg-type]
        for row in rows
        for what, column in (("time", "time_exponent"), ("memory", "memory_exponent"))
        if row["contender"] == OURS
        and row["axis"] in ("T", "B")
        and row[column] != ""
        and float(row[column]) > GROWTH  # type: ignore[arg-type]
    }
    return sorted(found)


def growth_lacking(rows: Sequence[Row]) -> list[str]:
    """The ends of the ranges that no row of ours is of."""
    there = {(row["axis"], str(row["size"])) for row in rows if row["contender"] == OURS}
    ends = [(axis, size) for axis, sizes in GROWS.items() for size in sizes]
    return [f"{axis} = {size}" for axis, size in ends if (axis, size) not in there]


def report(file: str, rows: Sequence[Row], *, check: bool, quick: bool = False) -> int:
    """Prints the verdicts; the exit status. Quick rows are judged, few as they are."""
    failed = []
    for mark in (mark for mark in MARKS if mark.file == file):
        found = verdict(mark, rows, quick=quick)
        if found is not None:
            said = say(found)
        elif quick:
            continue
        else:
            said = f"{mark.what}: NOT MEASURED: {', '.join(lacking(mark, rows)) or 'no peer'}"
        print(said, flush=True)
        if found is None or not found.met:
            failed.append(said)
    if file == "growth_cpu":
        failed = growth_missed(rows)
        if not quick and growth_lacking(rows):
            failed.append(f"growth: NOT MEASURED: {', '.join(growth_lacking(rows))}")
        print("\n".join(failed) or f"nothing grows faster than T^{GROWTH} or B^{GROWTH}: met")
    if failed and check:
        print("marks missed:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if check and failed else 0


def main(argv: list[str] | None = None) -> int:
    """All marks, of the stored rows."""
    options = arguments(__doc__).parse_args(argv)
    if options.quick:
        keep_apart()
    status = 0
    for file in ("sequence_cpu", "train_cpu", "step_cpu", "growth_cpu"):
        path = results_folder() / f"{file}.csv"
        rows: list[Row] = []
        if path.exists():
            with path.open(encoding="utf-8") as stored:
                rows = list(csv.DictReader(stored))
        found = report(file, rows, check=options.check, quick=options.quick)
        status = max(status, found)
    return status


if __name__ == "__main__":
    sys.exit(main())
