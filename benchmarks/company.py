# SPDX-License-Identifier: MIT
"""Does a contender's time depend on who is timed with it? `python -m benchmarks.company`

Each contender of one small case alone, in three processes of its own, and all of them in one:
call by call, in blocks, with a pause before each and with calls that are not timed (see timing).
Milliseconds, and over the time alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import torch

from .bench_sequence import twins
from .common import OURS, interleaved
from .peers import sequence_peers

WAYS = {
    "call by call": {"pause": 0.0, "lead": 0.0, "block": 0.0},
    "blocks": {"pause": 0.0, "lead": 0.0},
    "blocks, pause": {"lead": 0.0},
    "blocks, pause, lead": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", default="LSTM")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", help="one contender, its median is printed")
    options = parser.parse_args()
    torch.manual_seed(0)
    theirs, ours = twins(options.cell, options.hidden, "float32")
    x = torch.randn(50, options.batch, options.hidden)

    def mine() -> torch.Tensor:
        with torch.inference_mode():
            return ours(x)[0]

    contenders = {**sequence_peers(theirs, x, compile=False), OURS: mine}
    if options.only:
        run = {options.only: contenders[options.only]}
        print(statistics.median(interleaved(run, seconds=options.seconds / 3)[options.only]) * 1e3)
        return
    alone = {}
    for name in contenders:
        command = [sys.executable, "-m", "benchmarks.company", *sys.argv[1:], "--only", name]
        # Processes differ, too: by where their memory and their threads come to lie.
        made = [subprocess.run(command, capture_output=True, check=True) for _ in range(3)]
        alone[name] = statistics.median(float(run.stdout) for run in made)
    print(f"{'alone':21}" + "  ".join(f"{name} {ms:.3f}" for name, ms in alone.items()))
    for way, how in WAYS.items():
        times = interleaved(contenders, seconds=options.seconds, **how)
        medians = {name: statistics.median(found) * 1e3 for name, found in times.items()}
        print(
            f"{way:21}"
            + "  ".join(
                f"{name} {ms:.3f} ({ms / alone[name]:.2f}x)" for name, ms in medians.items()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
