# SPDX-License-Identifier: MIT
"""What the GPU benchmarks share: timing by events, the machine's ceilings, rows kept as they come.

Everything runs on the CPU, too (`--device cpu`, tiny sizes): that tests the scripts, its times mean
nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

import seq2seq_ext

from .common import RESULTS, commit, processor

Contenders = Mapping[str, Callable[[], object]]


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--seconds", type=float, default=120.0, help="stop starting rows after")
    parser.add_argument("--quick", action="store_true", help="the few sizes of the stated marks")
    return parser


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(
    contenders: Contenders, device: str, *, rounds: int = 15, target: float = 2e-3
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, `rounds` times, taking turns.

    A measurement is as many calls in a row as take about `target` seconds, between two events: the
    launch of the next hides behind the last, as in a training loop.
    """
    calls = {}
    for name, run in contenders.items():  # warm-up: plans, caches, clocks
        for _ in range(3):
            run()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(3):
            run()
        synchronize(device)
        calls[name] = max(1, min(200, int(target / ((time.perf_counter() - start) / 3))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(_once(run, calls[name], device))
    return times


def _once(run: Callable[[], object], calls: int, device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / calls


def captured(run: Callable[[], object], device: str) -> Callable[[], object]:
    """`run` as a CUDA graph's replay: what a hand-tuned PyTorch user would call."""
    if device != "cuda":
        return run
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def ceilings(device: str) -> dict[str, float]:
    """Measured: bytes/s of a large copy (read + written), flop/s of a large product per dtype."""
    count = 1 << 28 if device == "cuda" else 1 << 22
    a, b = torch.randn(count, device=device), torch.empty(count, device=device)
    copy = statistics.median(interleaved({"copy": lambda: b.copy_(a)}, device)["copy"])
    found = {"copy_gbs": 8 * count / copy / 1e9}
    size = 8192 if device == "cuda" else 256
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        x = torch.randn(size, size, device=device).to(dtype)
        y = torch.randn(size, size, device=device).to(dtype)
        run = {"mm": lambda x=x, y=y: x @ y}
        mm = statistics.median(interleaved(run, device, rounds=7, target=2e-2)["mm"])
        found[f"{str(dtype).removeprefix('torch.')}_tflops"] = 2 * size**3 / mm / 1e12
    return found


def environment(device: str) -> dict[str, object]:
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if cuda else "",
        "version": seq2seq_ext.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


class Rows:
    """Rows appended to results/<name>.csv (folder: SEQ2SEQ_EXT_RESULTS) as they are measured.

    `more`: to those of the run before, which are lost otherwise.
    """

    def __init__(self, name: str, common: Mapping[str, object], *, more: bool = False) -> None:
        folder = Path(os.environ.get("SEQ2SEQ_EXT_RESULTS", RESULTS))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.csv"
        self._common, self._begun = dict(common), more and self.path.exists()
        self.rows: list[dict[str, object]] = []

    def add(self, row: Mapping[str, object]) -> None:
        whole = {**row, **self._common}
        with self.path.open("a" if self._begun else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(whole))
            if not self._begun:
                writer.writeheader()
            self._begun = True
            writer.writerow(
                {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in whole.items()}
            )
        self.rows.append(whole)


def measured(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Per contender: median, p20, p80 in microseconds."""
    result = {}
    for name, values in times.items():
        ordered = sorted(values)
        result[name] = {
            "median_us": statistics.median(ordered) * 1e6,
            "p20_us": ordered[int(0.2 * (len(ordered) - 1))] * 1e6,
            "p80_us": ordered[int(0.8 * (len(ordered) - 1) + 0.999)] * 1e6,
        }
    return result
