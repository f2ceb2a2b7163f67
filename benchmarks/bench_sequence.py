# SPDX-License-Identifier: MIT
"""One recurrent layer over a sequence: ours against torch.nn, inference and training step.

Same weights, same random inputs, in one run. The input projection is counted, as it is part of the
module. A training step is the forward and the backward to the input and every parameter.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import seq2seq_ext.nn as fast

from .common import (
    arguments,
    environment,
    geometric_mean,
    interleaved,
    multiply_add_rate,
    summary,
    write_rows,
)

CELLS = ("LSTM", "GRU")
HIDDEN = (256, 512, 1024)
BATCH = (1, 16, 64)
STEPS = 50
GATES = {"LSTM": 4, "GRU": 3}


def twins(cell: str, hidden: int, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    theirs = getattr(nn, cell)(hidden, hidden).to(dtype)
    ours = getattr(fast, cell)(hidden, hidden).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def train_step(module: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y, _ = module(x)
    return torch.autograd.grad(y, [x, *module.parameters()], dy)


def must_agree(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    """Stops the run where the contenders do not compute the same thing."""
    for a, b in zip(ours, theirs, strict=True):
        error = (a - b).norm() / b.norm()
        if not error < (0.03 if a.dtype == torch.bfloat16 else 1e-4):
            sys.exit(f"the contenders disagree: relative difference {error:.2e}")


def measure(cell: str, hidden: int, batch: int, dtype: torch.dtype, seconds: float) -> list[dict]:
    theirs, ours = twins(cell, hidden, dtype)
    x = torch.randn(STEPS, batch, hidden).to(dtype)
    leaf, dy = x.clone().requires_grad_(), torch.randn(STEPS, batch, hidden).to(dtype)

    def infer(module: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return module(x)[0]

    must_agree((infer(ours),), (infer(theirs),))
    must_agree(train_step(ours, leaf, dy), train_step(theirs, leaf, dy))
    work = 4 * STEPS * batch * GATES[cell] * hidden * hidden  # x and h products
    rows = []
    for mode, flops, run in (
        ("inference", work, infer),
        ("training", 3 * work, lambda module: train_step(module, leaf, dy)),
    ):
        times = interleaved(
            {"torch.nn": lambda: run(theirs), "seq2seq_ext": lambda: run(ours)},  # noqa: B023
            seconds=seconds,
        )
        base = summary(times["torch.nn"])["median_ms"]
        for contender, measured in times.items():
            numbers = summary(measured)
            rows.append(
                {
                    "cell": cell,
                    "mode": mode,
                    "dtype": str(dtype).removeprefix("torch."),
                    "T": STEPS,
                    "B": batch,
                    "H": hidden,
                    "contender": contender,
                    **numbers,
                    "gflops": flops / numbers["median_ms"] / 1e6,
                    "speedup": base / numbers["median_ms"],
                }
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    hidden = HIDDEN[:2] if options.quick else HIDDEN
    seconds = 0.4 if options.quick else 2.0
    rate, rows = multiply_add_rate(), []
    print(f"torch's float32 product: {rate:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    print(f"{'cell':5}{'mode':10}{'dtype':>9}{'H':>6}{'B':>4}{'torch.nn':>11}{'ours':>10}{'x':>7}")
    slower = []
    for dtype in options.dtypes:
        for cell in CELLS:
            for h in hidden:
                for b in BATCH:
                    measured = measure(cell, h, b, getattr(torch, dtype), seconds)
                    rows += measured
                    for theirs, ours in zip(measured[::2], measured[1::2], strict=True):
                        print(
                            f"{cell:5}{ours['mode']:10}{dtype:>9}{h:6}{b:4}"
                            f"{theirs['median_ms']:9.2f}ms{ours['median_ms']:8.2f}ms"
                            f"{ours['speedup']:7.2f}",
                            flush=True,
                        )
                        if ours["speedup"] < 1:
                            slower.append((cell, ours["mode"], dtype, h, b))
    where = environment()
    path = write_rows("sequence_cpu", [{**row, "mm_gflops": rate, **where} for row in rows])
    for dtype in options.dtypes:
        for mode in ("inference", "training"):
            ratios = [
                row["speedup"]
                for row in rows
                if row["contender"] == "seq2seq_ext"
                and row["mode"] == mode
                and row["dtype"] == dtype
            ]
            print(f"{dtype} {mode}: geometric mean {geometric_mean(ratios):.2f}x torch.nn")
    print(f"rows: {path}")
    missed = [row for row in slower if row[1] == "training" and row[2] == "float32"]
    if options.check and missed:
        print("slower than torch.nn:", *missed, sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
