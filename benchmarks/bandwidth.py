# SPDX-License-Identifier: MIT
"""How fast this machine reads memory now: the ceiling of whatever streams its weights.

A reader goes over a buffer of float32 with one of torch's reductions, on torch's threads. A buffer
as large as the weights lies where these would lie: in a cache if they fit there. Which reduction is
the fastest differs by size and machine, so that all are timed and the best counts. torch.mv is not
among them: at batch 1 it reads at a fifth of what these reach, on processors for which its BLAS has
no threads or no wide vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def readers(nbytes: int, passes: int = 10) -> dict[str, Callable[[], object]]:
    """Reductions over `nbytes` of memory, each `passes` times in a call, as steps read weights."""
    floats = torch.ones(nbytes // 16 * 4)
    halves, whole = floats.chunk(2), floats.view(torch.int64)
    reductions: dict[str, Callable[[], object]] = {
        "sum": floats.sum,
        "maximum": floats.amax,
        "dot": lambda: torch.dot(*halves),
        "sum of integers": whole.sum,
    }

    def repeated(reduce: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            for _ in range(passes):
                reduce()

        return run

    return {name: repeated(reduce) for name, reduce in reductions.items()}
