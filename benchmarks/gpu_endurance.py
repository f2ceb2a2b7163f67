# SPDX-License-Identifier: MIT
"""The persistent kernels at full size, again and again: never a hang, every time the same bits.

Whoever runs it sets the time limit; a kernel that waits for ever is stopped by that.
"""

from __future__ import annotations

import argparse
import sys

import torch

import seq2seq_ext.nn as fast

SIZES = [  # cell, H, B, T, bidirectional
    ("LSTM", 768, 16, 1024, False),
    ("GRU", 768, 16, 1024, False),
    ("LSTM", 512, 64, 256, True),
    ("GRU", 1024, 32, 256, False),
    ("LSTM", 256, 128, 256, True),
    ("RNN", 512, 1, 512, False),
]


def results(module: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
    leaf = x.clone().requires_grad_()
    y, _ = module(leaf)
    return [y.detach(), *torch.autograd.grad(y, [leaf, *module.parameters()], dy)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args(argv)
    failed = 0
    for cell, hidden, batch, steps, both in SIZES:
        if options.device == "cpu":
            hidden, batch, steps = 8, 2, 4
        torch.manual_seed(0)
        module = getattr(fast, cell)(hidden, hidden, bidirectional=both)
        module = module.to(options.device, torch.bfloat16)
        x = torch.randn(steps, batch, hidden).to(options.device, torch.bfloat16)
        dy = torch.randn(steps, batch, hidden * (1 + both)).to(options.device, torch.bfloat16)
        first = results(module, x, dy)
        good = all(torch.isfinite(t).all() for t in first)
        for _ in range(options.repeat):
            again = results(module, x, dy)
            good = good and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        failed += not good
        print(
            f"{'ok  ' if good else 'FAIL'} {cell} H={hidden} B={batch} T={steps} {both=}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
