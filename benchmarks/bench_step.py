# SPDX-License-Identifier: MIT
"""Single steps under inference: cells, attention and vocabulary pick, ours against torch's ops."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from torch import nn

import seq2seq_ext.nn as fast
from seq2seq_ext import ops

from .common import arguments, environment, geometric_mean, interleaved, summary, write_rows

Contenders = dict[str, Callable[[], object]]


def cell_step(cell: str, hidden: int, batch: int) -> Contenders:
    theirs, ours = getattr(nn, cell)(hidden, hidden), getattr(fast, cell)(hidden, hidden)
    ours.load_state_dict(theirs.state_dict())
    x, h = torch.randn(batch, hidden), torch.randn(batch, hidden)
    state = (h, torch.randn(batch, hidden)) if cell == "LSTMCell" else h
    return {"torch": lambda: theirs(x, state), "seq2seq_ext": lambda: ours(x, state)}


def attention(size: int, batch: int, source: int = 30) -> Contenders:
    query, keys = torch.randn(batch, size), torch.randn(batch, source, size)
    lengths = torch.randint(1, source + 1, (batch,))
    padding = torch.arange(source) >= lengths[:, None]

    def theirs() -> torch.Tensor:
        scores = torch.bmm(keys, query.unsqueeze(2)).squeeze(2) / math.sqrt(size)
        weights = scores.masked_fill(padding, -math.inf).softmax(1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)

    def ours() -> torch.Tensor:
        return ops.attention_step(query, keys, keys, lengths=lengths, scale=size**-0.5)[0]

    return {"torch": theirs, "seq2seq_ext": ours}


def vocabulary(hidden: int, batch: int, words: int) -> Contenders:
    state, weight, bias = torch.randn(batch, hidden), torch.randn(words, hidden), torch.randn(words)

    def theirs() -> torch.Tensor:
        return torch.addmm(bias, state, weight.t()).log_softmax(1).max(1)[0]

    def ours() -> torch.Tensor:
        return ops.vocab_pick(state, weight, bias)[0][:, 0]

    return {"torch": theirs, "seq2seq_ext": ours}


def first(result: object) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result  # type: ignore[return-value]


def main(argv: list[str] | None = None) -> int:
    options = arguments(__doc__).parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows, where = [], environment()
    cases: list[tuple[str, int, int, Callable[[], Contenders]]] = []
    for batch in (1, 4, 16, 64):
        for size in (256, 512):
            for cell in ("LSTMCell", "GRUCell"):
                cases.append(
                    (cell, size, batch, lambda c=cell, s=size, b=batch: cell_step(c, s, b))
                )
            cases.append(("attention S=30", size, batch, lambda s=size, b=batch: attention(s, b)))
            for words in (8000, 32000):
                cases.append(
                    (
                        f"pick V={words}",
                        size,
                        batch,
                        lambda s=size, b=batch, w=words: vocabulary(s, b, w),
                    )
                )
    print(f"{'op':16}{'H':>5}{'B':>4}{'torch':>12}{'ours':>11}{'x':>7}")
    for op, size, batch, make in cases:
        with torch.inference_mode():
            contenders = make()
            error = first(contenders["seq2seq_ext"]()) - first(contenders["torch"]())
            if not error.abs().max() < 2e-3:
                sys.exit(f"{op}: the contenders disagree by {error.abs().max():.2e}")
            times = interleaved(contenders, seconds=0.2 if options.quick else 1.0)
        base = summary(times["torch"])["median_ms"]
        for contender, measured in times.items():
            numbers = summary(measured)
            speedup = base / numbers["median_ms"]
            rows.append(
                {
                    "op": op,
                    "H": size,
                    "B": batch,
                    "contender": contender,
                    **numbers,
                    "speedup": speedup,
                    **where,
                }
            )
        print(
            f"{op:16}{size:5}{batch:4}{base * 1e3:10.0f}us"
            f"{numbers['median_ms'] * 1e3:9.0f}us{speedup:7.2f}",
            flush=True,
        )
    for op in dict.fromkeys(str(row["op"]) for row in rows):
        ratios = [
            float(row["speedup"])  # type: ignore[arg-type]
            for row in rows
            if row["op"] == op and row["contender"] == "seq2seq_ext"
        ]
        print(f"{op}: geometric mean {geometric_mean(ratios):.2f}x")
    print(f"rows: {write_rows('step_cpu', rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
