# SPDX-License-Identifier: MIT
"""Single decode steps on a GPU: recurrent cell, attention, vocabulary pick, against PyTorch's best.

Peers are eager PyTorch and the same ops captured in a CUDA graph; ours run both ways, too. The
vocabulary pick is judged by the bytes of its weights over the measured copy bandwidth.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

import seq2seq_ext.nn as fast
from seq2seq_ext import ops

from .gpu import Rows, arguments, captured, ceilings, environment, interleaved, measured

Case = tuple[dict[str, Callable[[], object]], float, float]  # contenders, bytes, flops


def vocabulary(
    device: str, dtype: torch.dtype, hidden: int, batch: int, words: int, k: int
) -> Case:
    state = torch.randn(batch, hidden, device=device).to(dtype)
    weight = (torch.randn(words, hidden, device=device) / math.sqrt(hidden)).to(dtype)

    def theirs() -> object:
        logits = state @ weight.t()
        return logits.argmax(1) if k == 1 else logits.topk(k)

    def ours() -> object:
        return ops.vocab_pick(state, weight, k=k)

    size = weight.element_size()
    return (
        {"torch": theirs, "seq2seq_ext": ours},
        size * (words * hidden + batch * hidden),
        2.0 * batch * words * hidden,
    )


def cell(device: str, dtype: torch.dtype, name: str, hidden: int, batch: int) -> Case:
    theirs = getattr(nn, name)(hidden, hidden).to(device, dtype)
    ours = getattr(fast, name)(hidden, hidden).to(device, dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(batch, hidden, device=device).to(dtype)
    h = torch.randn(batch, hidden, device=device).to(dtype)
    state = (h, torch.randn(batch, hidden, device=device).to(dtype)) if "LSTM" in name else h
    gates = 4 if "LSTM" in name else 3
    work = 2 * gates * hidden * hidden
    return (
        {"torch": lambda: theirs(x, state), "seq2seq_ext": lambda: ours(x, state)},
        work * x.element_size(),
        2.0 * batch * work,
    )


def attention(device: str, dtype: torch.dtype, size: int, batch: int, source: int) -> Case:
    query = torch.randn(batch, size, device=device).to(dtype)
    keys = torch.randn(batch, source, size, device=device).to(dtype)
    lengths = torch.randint(1, source + 1, (batch,), device=device)
    padding = torch.arange(source, device=device) >= lengths[:, None]

    def theirs() -> torch.Tensor:
        scores = torch.bmm(keys, query.unsqueeze(2)).squeeze(2) / math.sqrt(size)
        weights = scores.masked_fill(padding, -math.inf).softmax(1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)

    def ours() -> torch.Tensor:
        return ops.attention_step(query, keys, keys, lengths=lengths, scale=size**-0.5)[0]

    moved = 2.0 * batch * source * size * query.element_size()
    return {"torch": theirs, "seq2seq_ext": ours}, moved, 4.0 * batch * source * size


def cases(device: str, quick: bool) -> list[tuple[str, torch.dtype, int, int, Callable[[], Case]]]:
    fp32, bf16, found = torch.float32, torch.bfloat16, []
    if device == "cpu":
        return [
            ("pick V=300 k=1", fp32, 32, 2, lambda: vocabulary("cpu", fp32, 32, 2, 300, 1)),
            ("LSTMCell", fp32, 16, 2, lambda: cell("cpu", fp32, "LSTMCell", 16, 2)),
            ("attention S=5", fp32, 16, 2, lambda: attention("cpu", fp32, 16, 2, 5)),
        ]
    for batch in (1, 8, 32, 64, 128, 256):
        for k in (1, 8):
            found.append(
                (f"pick V=32000 k={k}", bf16, 1024, batch,
                 lambda b=batch, k=k: vocabulary(device, bf16, 1024, b, 32000, k))
            )  # fmt: skip
    for batch in (1, 32) if quick else (1, 8, 32, 64, 256):
        for name in ("LSTMCell", "GRUCell"):
            found.append(
                (name, bf16, 1024, batch, lambda n=name, b=batch: cell(device, bf16, n, 1024, b))
            )
        found.append(
            (
                "attention S=50",
                bf16,
                1024,
                batch,
                lambda b=batch: attention(device, bf16, 1024, b, 50),
            )
        )
    return found


def main(argv: list[str] | None = None) -> int:
    options = arguments(__doc__).parse_args(argv)
    device, end = options.device, time.monotonic() + options.seconds
    torch.manual_seed(0)
    limits = ceilings(device)
    rows = Rows("step_gpu", {**limits, **environment(device)})
    print(
        f"{'op':18}{'H':>6}{'B':>5}{'torch':>10}{'graph':>10}{'ours':>10}{'graph':>10}{'x':>7}{'GB/s':>7}{'%':>5}"
    )
    failed = 0
    for op, dtype, size, batch, make in cases(device, options.quick):
        if time.monotonic() > end:
            print("time is over")
            break
        try:
            with torch.inference_mode():
                contenders, moved, flops = make()
                for name in list(contenders):
                    contenders[f"{name}, graph"] = captured(contenders[name], device)
                times = measured(interleaved(contenders, device, rounds=11, target=1e-3))
        except RuntimeError as error:
            print(f"{op} B={batch}: {error}", file=sys.stderr)
            failed += 1
            continue
        base = min(times["torch"]["median_us"], times["torch, graph"]["median_us"])
        for contender, numbers in times.items():
            rate = moved / numbers["median_us"] / 1e3
            rows.add(
                {
                    "op": op, "dtype": str(dtype).removeprefix("torch."), "H": size, "B": batch,
                    "contender": contender, **numbers, "gbs": rate,
                    "percent_of_copy": 100 * rate / limits["copy_gbs"],
                    "tflops": flops / numbers["median_us"] / 1e6,
                    "speedup": base / numbers["median_us"],
                }
            )  # fmt: skip
        graph = times["seq2seq_ext, graph"]["median_us"]
        text = "".join(
            f"{numbers['median_us']:10.1f}"
            for numbers in (
                times["torch"],
                times["torch, graph"],
                times["seq2seq_ext"],
                times["seq2seq_ext, graph"],
            )
        )
        print(
            f"{op:18}{size:6}{batch:5}{text}{base / graph:7.2f}{moved / graph / 1e3:7.0f}"
            f"{100 * moved / graph / 1e3 / limits['copy_gbs']:5.0f}",
            flush=True,
        )
    print(f"rows: {rows.path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
