# SPDX-License-Identifier: MIT
"""One recurrent layer on a GPU: ours against cuDNN (torch.nn), inference and forward + backward.

Same weights, same random inputs, one run; the input projection is counted. Rows are measured in
order of importance until `--seconds` are over. A row whose outputs or gradients are not cuDNN's
says so in column `agrees`, and the exit status is 1.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import nn

import seq2seq_ext.nn as fast

from .gpu import Rows, arguments, ceilings, environment, interleaved, measured, synchronize

GATES = {"LSTM": 4, "GRU": 3}
Size = tuple[str, torch.dtype, int, int, int, bool]  # cell, dtype, H, B, T, bidirectional

# The marks: cuDNN's fp16 persistent window, and where it has none.
FIRST: list[Size] = [
    ("LSTM", torch.float16, 768, 16, 1024, False),
    ("LSTM", torch.bfloat16, 768, 16, 1024, False),
    ("GRU", torch.float16, 768, 16, 1024, False),
    ("GRU", torch.bfloat16, 768, 16, 1024, False),
    ("LSTM", torch.bfloat16, 512, 32, 128, True),
    ("GRU", torch.bfloat16, 512, 32, 128, True),
    ("LSTM", torch.bfloat16, 1024, 1, 128, False),
    ("GRU", torch.float16, 1024, 1, 128, False),
]


def sizes(quick: bool, rest: bool) -> Iterator[Size]:
    if not rest:
        yield from FIRST
    if quick:
        return
    grid = itertools.product(
        (128, 1024), (512, 1024, 256, 768, 2048), (1, 32, 128, 16, 64), ("LSTM", "GRU"),
        (torch.bfloat16, torch.float16),
    )  # fmt: skip
    for steps, hidden, batch, cell, dtype in grid:
        size = (cell, dtype, hidden, batch, steps, False)
        if size not in FIRST:
            yield size


def twins(size: Size, device: str) -> tuple[nn.Module, nn.Module]:
    cell, dtype, hidden, _, _, both = size
    theirs = getattr(nn, cell)(hidden, hidden, bidirectional=both).to(device, dtype)
    ours = getattr(fast, cell)(hidden, hidden, bidirectional=both).to(device, dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def disagreement(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def measure(size: Size, device: str, limits: dict[str, float], rows: Rows) -> int:
    """Adds the rows of one size; returns how many comparisons failed."""
    cell, dtype, hidden, batch, steps, both = size
    theirs, ours = twins(size, device)
    directions = 2 if both else 1
    x = torch.randn(steps, batch, hidden, device=device).to(dtype)
    leaf = x.clone().requires_grad_()
    dy = torch.randn(steps, batch, directions * hidden, device=device).to(dtype)
    name = str(dtype).removeprefix("torch.")

    def infer(module: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)[0]

    def train(module: nn.Module) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(module(leaf)[0], [leaf, *module.parameters()], dy)

    failed = 0
    work = 4 * directions * steps * batch * GATES[cell] * hidden * hidden
    for mode, flops, run in (("inference", work, infer), ("training", 3 * work, train)):
        a, b = run(ours), run(theirs)
        error = (
            max(disagreement(p, q) for p, q in zip(a, b, strict=True))
            if mode == "training"
            else (disagreement(a, b))
        )
        agrees = error < 0.05  # no NaN does
        failed += not agrees
        calls = {"cudnn": lambda: run(theirs), "seq2seq_ext": lambda: run(ours)}  # noqa: B023
        times = measured(interleaved(calls, device, rounds=9))
        base = times["cudnn"]["median_us"]
        for contender, numbers in times.items():
            tflops = flops / numbers["median_us"] / 1e6
            rows.add(
                {
                    "cell": cell, "mode": mode, "dtype": name, "H": hidden, "B": batch, "T": steps,
                    "bidirectional": both, "contender": contender, **numbers,
                    "us_per_step": numbers["median_us"] / steps,
                    "tflops": tflops,
                    "percent_of_gemm": 100 * tflops / limits[f"{name}_tflops"],
                    "speedup": base / numbers["median_us"],
                    "disagreement": error, "agrees": agrees,
                }
            )  # fmt: skip
        mark = "" if agrees else "  NOT THE SAME RESULT"
        print(
            f"{cell:5}{mode:10}{name:>9} H{hidden:<5}B{batch:<4}T{steps:<5}{'bi' * both:3}"
            f"{base / 1e3:9.3f} ms{times['seq2seq_ext']['median_us'] / 1e3:9.3f} ms"
            f"{base / times['seq2seq_ext']['median_us']:7.2f}x   error {error:.1e}{mark}",
            flush=True,
        )
    return failed


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rest", action="store_true", help="what --quick leaves out, added to it")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    end = time.monotonic() + options.seconds
    limits = ceilings(options.device)
    print("ceilings:", ", ".join(f"{k} {v:.0f}" for k, v in limits.items()))
    rows = Rows("sequence_gpu", {**limits, **environment(options.device)}, more=options.rest)
    chosen = list(sizes(options.quick, options.rest))
    if options.device == "cpu":
        chosen = [("LSTM", torch.bfloat16, 16, 2, 5, False), ("GRU", torch.float16, 8, 1, 3, True)]
    failed = 0
    for done, size in enumerate(chosen):
        if time.monotonic() > end:
            print(f"time is over: {len(chosen) - done} of {len(chosen)} sizes not measured")
            break
        try:
            failed += measure(size, options.device, limits, rows)
        except (
            RuntimeError
        ) as error:  # out of memory, a failed launch: said, and the next one tried
            print(f"{size}: {error}", file=sys.stderr)
            failed += 1
        synchronize(options.device)
    ours = [row for row in rows.rows if row["contender"] == "seq2seq_ext"]
    for mode in ("inference", "training"):
        ratios = [float(r["speedup"]) for r in ours if r["mode"] == mode]  # type: ignore[arg-type]
        if ratios:
            print(
                f"{mode}: geometric mean {statistics.geometric_mean(ratios):.2f}x cuDNN, "
                f"worst {min(ratios):.2f}x, {sum(r < 1 for r in ratios)} of {len(ratios)} lost"
            )
    print(f"rows: {rows.path}")
    if failed:
        print(f"{failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
