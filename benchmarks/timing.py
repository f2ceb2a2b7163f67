# SPDX-License-Identifier: MIT
"""Timing of contenders in one process, such that none pays for the others.

The worker threads of OpenMP, ONNX Runtime and others go on spinning for a while after a call, in
wait for the next, and take a core from whoever comes then. Threads that have slept need some
milliseconds of calls until the system has them on cores of their own again. So the contenders take
turns in blocks: a pause, calls that are not timed, then calls that are. What comes out is each
contender's time in steady use, as if it were alone; `python -m benchmarks.company` shows on a
machine whether that is so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

PAUSE, LEAD, BLOCK = 0.01, 0.03, 0.03  # seconds


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int = 5,
    pause: float = PAUSE,
    lead: float = LEAD,
    block: float = BLOCK,
) -> dict[str, list[float]]:
    """Times the contenders in blocks, round after round, so that all meet the same machine.

    contenders: what to time, by name.
    seconds: about how long all rounds together may take; at least `least` rounds are run.
    pause, lead, block: seconds of nothing, of calls that are not timed, and of those that are, in
        each contender's turn. There is one call of either kind at least, but calls that take ten
        times the lead need none.
    Returns each contender's times, in seconds.
    """
    lasts = {name: _warm(run) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or (time.perf_counter() < end and rounds < 1000):
        for name, run in contenders.items():
            time.sleep(pause)
            if lasts[name] < 10 * lead:
                _turn(run, lead)
            times[name] += _turn(run, block)
        rounds += 1
    return times


def _warm(run: Callable[[], object]) -> float:
    """Caches, thread pools, lazily built plans. Returns what a call takes now."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _turn(run: Callable[[], object], block: float) -> list[float]:
    times: list[float] = []
    begin = start = time.perf_counter()
    while not times or start - begin < block:
        run()
        now = time.perf_counter()
        times.append(now - start)
        start = now
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and 20th / 80th percentile, in milliseconds."""
    ordered = sorted(times)
    return {
        "median_ms": statistics.median(ordered) * 1e3,
        "p20_ms": ordered[int(0.2 * (len(ordered) - 1))] * 1e3,
        "p80_ms": ordered[int(0.8 * (len(ordered) - 1) + 0.999)] * 1e3,
    }


def geometric_mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values)
