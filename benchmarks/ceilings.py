# SPDX-License-Identifier: MIT
"""What this machine does at most, measured at the beginning of each run.

Multiply-adds a second, per dtype: a loop of multiply-adds in registers (`ceilings.cpp`), and
torch's matrix product (its BLAS may use less than the widest instructions, or instructions that
the loop does not have). Bytes a second, per level of the memory: read, and copied (read + written).
Without a compiler the loops are torch's reductions and copies, which see no small caches.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .machine import ROOT, cache_sizes, processor
from .timing import interleaved

SOURCE = Path(__file__).with_name("ceilings.cpp")
DTYPES = {"float32": 4, "bfloat16": 2, "int8": 1}
PRODUCTS = (512, 1024, 2048)  # of these sizes the fastest counts
LARGE = 256 << 20  # bytes that no cache holds, but see `measure`


@dataclass(frozen=True)
class Level:
    """A level of the memory, as all threads together see it."""

    name: str
    capacity: float  # bytes
    read: float  # bytes a second
    copy: float


@dataclass(frozen=True)
class Work:
    """What has to be done at least: operations, and bytes moved within a working set."""

    flops: float
    streams: tuple[tuple[float, float], ...]  # bytes, the working set that they lie in

    @property
    def bytes(self) -> float:
        return sum(moved for moved, _ in self.streams)


@dataclass(frozen=True)
class Ceilings:
    threads: int
    levels: tuple[Level, ...]  # the fastest first, memory last
    product: Mapping[str, float]  # torch's, operations a second, by dtype
    loop: Mapping[str, float]  # in registers; 0 where it has not been measured

    def peak(self, dtype: str) -> float:
        """Of int8, where no instruction for it has been measured, four times that of float32."""
        found = max(self.product.get(dtype, 0), self.loop[dtype])
        return found or 4 * self.peak("float32")

    def bandwidth(self, working_set: float) -> float:
        """Bytes a second where a working set lies: the first level that holds it."""
        level = next((x for x in self.levels if working_set <= x.capacity), self.levels[-1])
        return max(level.read, level.copy)

    def floor(self, work: Work, dtype: str) -> float:
        """The roofline: no way to do it takes less than these seconds."""
        moving = sum(moved / self.bandwidth(lies_in) for moved, lies_in in work.streams)
        return max(work.flops / self.peak(dtype), moving)

    def rows(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for level in self.levels:
            mib = "" if level.capacity == float("inf") else level.capacity / 2**20
            for what, rate in (("read", level.read), ("copy", level.copy)):
                found.append(_row("GB/s", f"{level.name} {what}", rate / 1e9, mib))
        for dtype in DTYPES:
            if dtype in self.product:
                found.append(_row("GFLOP/s", f"torch.mm {dtype}", self.product[dtype] / 1e9))
            if self.loop[dtype]:
                found.append(_row("GFLOP/s", f"multiply-add {dtype}", self.loop[dtype] / 1e9))
        return found


def _row(unit: str, what: str, rate: float, mib: float | str = "") -> dict[str, object]:
    return {"what": what, "mib": mib, "rate": rate, "unit": unit}


def measure(seconds: float = 0.02) -> Ceilings:
    """For as many threads as torch has now. `seconds`: of each of some 80 loops."""
    threads = torch.get_num_threads()
    loops = _loops()
    levels = []
    for name, size, shared in [(n, *of) for n, of in cache_sizes().items()]:
        # Half a cache: the rest is for what else lies there.
        rates = _memory(loops, size // (2 * threads if shared else 2), threads, seconds)
        levels.append(Level(name, size * (1 if shared else threads), *rates))
    large = max(LARGE, 4 * max(size for size, _ in cache_sizes().values()))
    levels.append(
        Level("DRAM", float("inf"), *_memory(loops, large // threads, threads, 3 * seconds))
    )
    loop = {d: loops.peak_rate(n, threads, seconds) if loops else 0.0 for d, n in DTYPES.items()}
    product = {d: _product(getattr(torch, d), 10 * seconds) for d in ("float32", "bfloat16")}
    return Ceilings(threads, tuple(levels), product, loop)


def _memory(
    loops: ctypes.CDLL | None, nbytes: int, threads: int, seconds: float
) -> tuple[float, float]:
    if loops:
        return tuple(loops.memory_rate(copy, nbytes, threads, seconds) for copy in (0, 1))  # type: ignore[return-value]
    source = torch.ones(nbytes * threads // 8)  # half of it, as it is copied to the other
    target, both = torch.empty_like(source), torch.ones(nbytes * threads // 4)
    runs = {"copy": lambda: target.copy_(source), "sum": both.sum, "amax": both.amax}
    times = interleaved(runs, seconds=10 * seconds, pause=0, lead=0)
    rate = {name: nbytes * threads / statistics.median(found) for name, found in times.items()}
    return max(rate["sum"], rate["amax"]), rate["copy"]


def _product(dtype: torch.dtype, seconds: float) -> float:
    best = 0.0
    for size in PRODUCTS:
        a, b = torch.randn(2, size, size).to(dtype)
        out = torch.empty(size, size, dtype=dtype)
        times = interleaved(
            {"mm": lambda a=a, b=b, out=out: torch.mm(a, b, out=out)},
            seconds=seconds,
            pause=0,
            lead=0,
        )
        best = max(best, 2 * size**3 / statistics.median(times["mm"]))
    return best


def _loops() -> ctypes.CDLL | None:
    """ceilings.cpp, compiled for this processor, kept in build/ (or anew in a temporary folder)."""
    compiler = (os.environ.get("CXX") or "c++").split()
    if not shutil.which(compiler[0]):
        print("no C++ compiler: the ceilings are torch's", file=sys.stderr)
        return None
    key = hashlib.sha256(SOURCE.read_bytes() + processor().encode()).hexdigest()[:16]
    folder = ROOT / "build" / "benchmarks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp())
    path = folder / f"ceilings-{key}.so"
    flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        command = [*compiler, *flags, str(SOURCE), "-o", str(part)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            print(f"the ceilings are torch's: {made.stderr[:300]}", file=sys.stderr)
            return None
        part.rename(path)
    loops = ctypes.CDLL(str(path))
    double, int_ = ctypes.c_double, ctypes.c_int
    loops.peak_rate.restype, loops.peak_rate.argtypes = double, [int_, int_, double]
    loops.memory_rate.restype = double
    loops.memory_rate.argtypes = [int_, ctypes.c_size_t, int_, double]
    return loops


def show(ceilings: Ceilings) -> None:
    rates = "; ".join(f"{row['what']} {row['rate']:.0f}" for row in ceilings.rows())
    print(f"ceilings, {ceilings.threads} threads (GB/s, GFLOP/s): {rates}", flush=True)


def sequence_work(
    gates: int,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    size: int,
    *,
    training: bool,
    directions: int = 1,
    filled: float = 1.0,
) -> Work:
    """One layer: products with x_t and h_{t-1}, the recurrent weights read once a step, everything
    else once. A training step has two more products of each size, and reads the weights backwards.

    size: bytes an element. filled: the share of the T * B positions that is no padding.
    """
    passes = 2 if training else 1  # over the sequence
    rows = filled * steps * batch
    flops = (1 + 2 * training) * directions * 2 * rows * gates * hidden * (inputs + hidden)
    recurrent = directions * gates * hidden * hidden * size
    layer = directions * gates * hidden * (inputs + hidden) * size
    activations = rows * (inputs + directions * hidden) * size
    once = passes * (layer + activations)  # backwards: the gradients
    return Work(flops, ((passes * steps * recurrent, recurrent), (once, once)))


def step_work(flops: float, nbytes: float) -> Work:
    """Something that is called again and again, and reads the same bytes each time."""
    return Work(flops, ((nbytes, nbytes),))
