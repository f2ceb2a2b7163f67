# SPDX-License-Identifier: MIT
"""A long file through `translate`: speed, memory as it goes, and the same again with interruptions.

python -m benchmarks.long_file MODEL TEXT [options of translate]

First a run that nobody disturbs; then one that gets Ctrl-C after about a third of the lines and is
killed after two thirds, each time gone on with by --resume. Both files have to be the same.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STOPS = ((signal.SIGINT, 1 / 3), (signal.SIGKILL, 2 / 3))


def _lines(record: Path) -> int:
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["lines"])
    except FileNotFoundError:
        return 0


def _memory(process: int) -> dict[str, float]:
    """VmRSS, now, and VmHWM, the peak so far, in MB (10**6 bytes)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB", status, re.MULTILINE)
    return {name: int(kib) * 1024 / 1e6 for name, kib in found}


def run(
    command: list[str], output: Path, total: int, stop: tuple[signal.Signals, float] | None = None
) -> tuple[str, list[tuple[int, dict[str, float]]]]:
    """Returns what it says at last, and the memory whenever lines were written."""
    record = output.with_name(output.name + ".partial.json")
    done, samples = _lines(record), []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        lines = _lines(record)
        if lines > done:
            done = lines
            memory = _memory(process.pid)
            if memory:  # none: it is just ending
                samples.append((lines, memory))
            if stop is not None and lines >= stop[1] * total:
                process.send_signal(stop[0])
                break
        time.sleep(0.01)
    _, log = process.communicate()
    expected = 0 if stop is None else {signal.SIGINT: 130, signal.SIGKILL: -9}[stop[0]]
    if process.returncode != expected:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}\n{log}")
    return (log.splitlines() or ["killed"])[-1], samples


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    # What a shell starts in the background ignores Ctrl-C, and so would what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model, text, *options = sys.argv[1:]
    with open(text, "rb") as file:
        total = sum(1 for _ in file)
    command = [sys.executable, "-m", "seq2seq_ext", "translate", model, "-i", text, *options]
    with tempfile.TemporaryDirectory() as folder:
        whole, pieces = Path(folder, "whole"), Path(folder, "pieces")
        said, samples = run([*command, "-o", str(whole)], whole, total)
        print(f"{total:,} lines: {said}")
        for share in (0.1, 0.5, 1.0):
            lines, memory = next(s for s in samples if s[0] >= min(share * total, samples[-1][0]))
            now, peak = memory["VmRSS"], memory["VmHWM"]
            print(f"  after {lines:,} lines: {now:.0f} MB resident, {peak:.0f} MB at most so far")
        again = [*command, "-o", str(pieces), "--resume"]
        for stop in (*STOPS, None):
            print(run(again, pieces, total, stop)[0])
        if pieces.read_bytes() != whole.read_bytes():
            raise SystemExit("the run with interruptions gave another file")
        print("the same file with interruptions")


if __name__ == "__main__":
    main()
