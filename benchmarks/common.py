# SPDX-License-Identifier: MIT
"""What the benchmarks share: their options, how a case is compared, rows in a CSV."""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from . import ceilings as machine_ceilings
from .ceilings import Ceilings, Work
from .machine import commit, environment, processor, versions
from .memory import peak_mb
from .timing import geometric_mean, interleaved, summary

__all__ = [
    "OURS",
    "RESULTS",
    "arguments",
    "begin",
    "commit",
    "compare",
    "environment",
    "geometric_mean",
    "interleaved",
    "keep_apart",
    "must_agree",
    "processor",
    "results_folder",
    "summary",
    "versions",
    "write_rows",
]

OURS = "seq2seq_ext"
RESULTS = Path(__file__).resolve().parent / "results"
# Relative difference in the Euclidean norm that rounding may make.
ROUNDING = {"float32": 1e-4, "bfloat16": 0.03}
Contenders = Mapping[str, Callable[[], object]]
Row = dict[str, object]


QUICK_RESULTS = RESULTS.parent.parent / "build" / "benchmarks" / "quick"


def results_folder() -> Path:
    return Path(os.environ.get("SEQ2SEQ_EXT_RESULTS", RESULTS))


def keep_apart() -> None:
    """Quick rows do not take the place of the stored ones: unless a folder is named, they go to
    build/benchmarks/quick."""
    os.environ.setdefault("SEQ2SEQ_EXT_RESULTS", str(QUICK_RESULTS))


def write_rows(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Writes the rows to results/<name>.csv (folder: SEQ2SEQ_EXT_RESULTS), replacing the file."""
    folder = results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    return path


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few sizes, fewer rounds: under a minute; rows to build/benchmarks/quick",
    )
    parser.add_argument("--threads", type=int, default=None, help="torch.set_num_threads")
    parser.add_argument(
        "--check", action="store_true", help="exit with an error where a stated mark is missed"
    )
    return parser


def begin(bench: str, options: argparse.Namespace) -> Ceilings:
    """Sets threads, seed and folder, measures the ceilings, keeps their rows beside those of other
    runs."""
    if options.quick:
        keep_apart()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found = machine_ceilings.measure(0.01 if options.quick else 0.03)
    machine_ceilings.show(found)
    path = results_folder() / "ceilings.csv"
    kept: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["bench"] != bench]
    where = environment()
    new = [{"bench": bench, **row, **where} for row in found.rows()]
    write_rows("ceilings", [*(row for row in kept if row.keys() == new[0].keys()), *new])
    return found


def must_agree(results: Mapping[str, Sequence[object]], against: str, dtype: str) -> None:
    """Stops the run where contenders do not compute the same: their tensors or arrays, in order."""
    for name, result in results.items():
        for ours, theirs in zip(result, results[against], strict=True):
            a, b = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
            if a.numel() != b.numel():
                sys.exit(f"{name} disagrees with {against}: {a.shape} and {b.shape}")
            error = float((a.reshape(b.shape) - b).norm() / b.norm())
            if not error < ROUNDING[dtype]:
                sys.exit(f"{name} disagrees with {against}: relative difference {error:.2e}")


def compare(
    case: Mapping[str, object],
    contenders: Contenders,
    ceilings: Ceilings,
    work: Work,
    *,
    seconds: float,
    least: int = 5,
    base: str = "torch.nn",
) -> list[Row]:
    """Times the contenders of a case that names its dtype; one row each.

    speedup: base's median over the contender's; speedup_best: that of the fastest peer, named in
    best_peer. roofline: the share of what the machine can do (see `Ceilings.floor`).
    """
    dtype = str(case["dtype"])
    times = interleaved(contenders, seconds=seconds, least=least)
    medians = {name: statistics.median(found) for name, found in times.items()}
    best = min((name for name in medians if name != OURS), key=medians.__getitem__)
    floor = ceilings.floor(work, dtype)
    rows = []
    for name, run in contenders.items():
        peak = peak_mb(run)
        rows.append(
            {
                **case,
                "contender": name,
                **summary(times[name]),
                "speedup": medians[base] / medians[name],
                "speedup_best": medians[best] / medians[name],
                "best_peer": best,
                "flops": float(work.flops),
                "bytes": float(work.bytes),
                "gflops": work.flops / medians[name] / 1e9,
                "roofline_ms": floor * 1e3,
                "roofline": floor / medians[name],
                "peak_mb": "" if peak is None else peak,
            }
        )
    return rows
