# SPDX-License-Identifier: MIT
"""What the benchmarks share: interleaved timing, the machine's description, rows in a CSV."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

import seq2seq_ext

RESULTS = Path(__file__).resolve().parent / "results"


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, seconds: float, least: int = 7
) -> dict[str, list[float]]:
    """Times the contenders in turn, round after round, so that all meet the same machine.

    contenders: what to time, by name.
    seconds: about how long all rounds together may take; at least `least` rounds are run.
    Returns each contender's times, in seconds.
    """
    for run in contenders.values():  # warm-up: caches, thread pools, lazily built plans
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or (time.perf_counter() < end and rounds < 1000):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        rounds += 1
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and 20th / 80th percentile, in milliseconds."""
    ordered = sorted(times)
    return {
        "median_ms": statistics.median(ordered) * 1e3,
        "p20_ms": ordered[int(0.2 * (len(ordered) - 1))] * 1e3,
        "p80_ms": ordered[int(0.8 * (len(ordered) - 1) + 0.999)] * 1e3,
    }


def multiply_add_rate(seconds: float = 0.5) -> float:
    """The float32 rate of torch's matrix product on this machine now, in GFLOP/s: a yardstick.

    Not the processor's peak: torch's BLAS may use less than its widest instructions.
    """
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    out = torch.empty(1024, 1024)
    times = interleaved({"mm": lambda: torch.mm(a, b, out=out)}, seconds=seconds)["mm"]
    return 2 * 1024**3 / statistics.median(times) / 1e9


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The short hash of the tree that is measured, with + if it has been changed since."""
    root = Path(__file__).resolve().parent.parent

    def git(*args: str) -> str:
        run = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "csrc", "seq2seq_ext", "setup.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def environment() -> dict[str, object]:
    """What a row needs to be understood later."""
    info = seq2seq_ext.backend_info()
    return {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "isa": info["cpu"]["isa"],
        "torch": torch.__version__,
        "version": seq2seq_ext.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def write_rows(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Writes the rows to results/<name>.csv (folder: SEQ2SEQ_EXT_RESULTS), replacing the file."""
    folder = Path(os.environ.get("SEQ2SEQ_EXT_RESULTS", RESULTS))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    return path


def geometric_mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values)


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--threads", type=int, default=None, help="torch.set_num_threads")
    parser.add_argument(
        "--check", action="store_true", help="exit with an error where a stated mark is missed"
    )
    return parser
