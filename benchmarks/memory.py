# SPDX-License-Identifier: MIT
"""How much memory a call takes at its peak, above what the process had before it.

Linux keeps the largest resident size that a process had (VmHWM) and lets the process set it back.
What the allocator keeps of earlier calls is given back first, or it would hide a part.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb(run: Callable[[], object], *, warm: bool = False) -> float | None:
    """Megabytes (10**6 bytes); None where the system does not tell. The result is part of it.

    warm: it has just run, and what is made once is there.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
        if not warm:
            run()  # what is made once is no part of a call
        trim(0)
        CLEAR.write_text("5", encoding="utf-8")
        before = _resident("VmRSS")
        result = run()
        peak = _resident("VmHWM")
    except (OSError, AttributeError, TypeError):
        return None
    del result
    return max(0.0, (peak - before) * 1024 / 1e6)


def _resident(what: str) -> int:
    """KiB."""
    found = re.search(rf"^{what}:\s*(\d+)", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1])  # type: ignore[index]
