# SPDX-License-Identifier: MIT
"""One recurrent layer over a sequence under inference: ours against every peer (see peers).

Same weights, same random inputs, in one run. Every peer at its best: so are ours, whose weights are
frozen (`nn.freeze`), as those of exported models are. The input projection is counted, as it is
part of the module. Set "sequence": T = 50; set "small": bound by latency, T = 200.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

import seq2seq_ext.nn as fast

from . import marks
from .ceilings import Ceilings, sequence_work
from .common import OURS, Row, arguments, begin, compare, environment, must_agree, write_rows
from .peers import sequence_peers

CELLS = ("LSTM", "GRU")
GATES = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True)
class Case:
    set: str
    cell: str
    dtype: str
    T: int
    B: int
    H: int


def cases(dtypes: list[str], *, quick: bool) -> Iterator[Case]:
    hidden, batch = ((256,), (1, 16)) if quick else ((256, 512, 1024), (1, 16, 64))
    for dtype in dtypes:
        for cell, h, b in itertools.product(CELLS, hidden, batch):
            yield Case("sequence", cell, dtype, 50, b, h)
        for cell, h in itertools.product(CELLS, (64, 128)):
            yield Case("small", cell, dtype, 200, 1, h)


def twins(cell: str, hidden: int, dtype: str, **options: bool) -> tuple[nn.Module, nn.Module]:
    """torch.nn's layer and ours with the same weights."""
    theirs = getattr(nn, cell)(hidden, hidden, **options).to(getattr(torch, dtype))
    ours = getattr(fast, cell)(hidden, hidden, **options).to(getattr(torch, dtype))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def measure(case: Case, ceilings: Ceilings, *, seconds: float, compile: bool = True) -> list[Row]:
    theirs, ours = twins(case.cell, case.H, case.dtype)
    fast.freeze(ours)
    x = torch.randn(case.T, case.B, case.H).to(getattr(torch, case.dtype))

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return ours(x)[0]

    contenders = {**sequence_peers(theirs, x, compile=compile), OURS: run}
    must_agree({name: (run(),) for name, run in contenders.items()}, "torch.nn", case.dtype)
    work = sequence_work(
        GATES[case.cell], case.T, case.B, case.H, case.H, x.element_size(), training=False
    )
    rows = compare(vars(case), contenders, ceilings, work, seconds=seconds)
    torch._dynamo.reset()  # the next case compiles the same functions anew
    return rows


def show(rows: list[Row]) -> None:
    mine = next(row for row in rows if row["contender"] == OURS)
    size = " ".join(f"{mine[k]!s:>4}" for k in ("T", "B", "H"))
    times = "  ".join(f"{row['contender']} {row['median_ms']:.3g}" for row in rows)
    print(
        f"{mine['cell']:5}{mine['dtype']:9}{size}  {mine['speedup']:5.2f}x torch.nn "
        f"{mine['speedup_best']:5.2f}x {mine['best_peer']}, {mine['roofline']:4.0%} of roofline;"
        f" ms: {times}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    options = parser.parse_args(argv)
    ceilings = begin("sequence", options)
    rows: list[Row] = []
    for case in cases(options.dtypes, quick=options.quick):
        # torch.compile takes some seconds a case.
        measured = measure(
            case, ceilings, seconds=0.5 if options.quick else 3.0, compile=not options.quick
        )
        show(measured)
        rows += measured
    where = environment()
    print(f"rows: {write_rows('sequence_cpu', [{**row, **where} for row in rows])}")
    return marks.report("sequence_cpu", rows, check=options.check, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
