# SPDX-License-Identifier: MIT
"""The tables of the READMEs, made from the stored rows: `python -m benchmarks.table` rewrites them.

A test compares the READMEs with what this makes, so that figures and rows cannot drift apart.
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from .common import RESULTS

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- from benchmarks/results: {} -->", "<!-- end -->"
Row = dict[str, str]


def rows(name: str) -> list[Row]:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def conditions(row: Row) -> str:
    return (
        f"{row['device']}, {row['isa']}, {row['threads']} threads, torch {row['torch']}, "
        f"{row['date']}, commit {row['commit']}"
    )


def mean(speedups: list[float]) -> str:
    return f"{statistics.geometric_mean(speedups):.2f}x"


def sequence_table() -> str:
    """Every sequence row: torch.nn's time, ours, the ratio; inference and training side by side."""
    found = rows("sequence_cpu")
    lines = [
        f"One layer, T = {found[0]['T']}, I = H, padded; {conditions(found[0])}; torch's own "
        f"product at {float(found[0]['mm_gflops']):.0f} GFLOP/s. Milliseconds.",
        "",
        "| cell | dtype | H | B | inference: torch.nn | ours | | training: torch.nn | ours | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    cells: dict[tuple[str, ...], dict[tuple[str, str], Row]] = {}
    for row in found:
        key = (row["cell"], row["dtype"], row["H"], row["B"])
        cells.setdefault(key, {})[row["mode"], row["contender"]] = row
    for key, entry in cells.items():
        text = [*key]
        for mode in ("inference", "training"):
            theirs, ours = entry[mode, "torch.nn"], entry[mode, "seq2seq_ext"]
            text += [
                f"{float(theirs['median_ms']):.2f}",
                f"{float(ours['median_ms']):.2f}",
                f"{float(ours['speedup']):.2f}x",
            ]
        lines.append("| " + " | ".join(text) + " |")
    return "\n".join(lines)


def step_table() -> str:
    """Every single-step row: torch's time, ours, the ratio."""
    found = rows("step_cpu")
    lines = [
        f"float32; {conditions(found[0])}. Microseconds.",
        "",
        "| op | H | B | torch | ours | |",
        "|---|---|---|---|---|---|",
    ]
    for theirs, ours in zip(found[::2], found[1::2], strict=True):
        lines.append(
            f"| {ours['op']} | {ours['H']} | {ours['B']} | {float(theirs['median_ms']) * 1e3:.0f} "
            f"| {float(ours['median_ms']) * 1e3:.0f} | {float(ours['speedup']):.2f}x |"
        )
    return "\n".join(lines)


def decode_table() -> str:
    """The best peers, and ours in each dtype over torch.nn in float32 (at batch 1 over the addmv
    variant, too); at batch 1 how fast the weights are read."""
    if not (RESULTS / "decode.csv").exists():
        return "No rows are stored yet."
    found = rows("decode")
    lines = [
        f"{conditions(found[0])}. Tokens a second; over torch.nn's layers in float32, eager or "
        "compiled; in brackets the mark.",
        "",
        "| V | H | B | beams | best peer, float32 | best peer, bfloat16 | ours, float32 "
        "| ours, bfloat16 | ours, int8 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reads = ["| V | H | weights | MB a step | GB/s | reading | |", "|---|---|---|---|---|---|---|"]
    cases: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        cases.setdefault((row["V"], row["H"], row["B"], row["beams"]), []).append(row)
    for key, case in cases.items():
        peers = [row for row in case if row["contender"] != "seq2seq_ext"]
        ours = [row for row in case if row["contender"] == "seq2seq_ext"]
        text = [*key]
        for dtype in ("float32", "bfloat16"):
            best = max(
                (row for row in peers if row["dtype"] == dtype),
                key=lambda row: float(row["tokens_per_s"]),
            )
            text.append(f"{float(best['tokens_per_s']):.0f} ({best['contender']})")
        for row in ours:
            mark = f" ({row['mark']}x)" if row["mark"] else ""
            over, least = float(row["speedup_nn"]), float(row["speedup"])
            apart = any(peer["contender"].endswith("addmv") for peer in peers)
            more = f"; {least:.2f}x addmv" if apart else ""
            text.append(f"{float(row['tokens_per_s']):.0f}: {over:.2f}x{mark}{more}")
            if row["share"]:
                rates = (row[name] for name in ("weight_mb", "gb_per_s", "read_gb_per_s"))
                numbers = " | ".join(f"{float(rate):.1f}" for rate in rates)
                share = f"{float(row['share']):.0%}"
                reads.append(f"| {row['V']} | {row['H']} | {row['dtype']} | {numbers} | {share} |")
        lines.append("| " + " | ".join(text) + " |")
    return "\n".join([*lines, "", "Batch 1, mark 70 % of reading:", "", *reads])


def hand_tuned(ours: list[Row]) -> str:
    """What is left at batch 1 of the largest vocabulary against the best peer of all."""
    words = max(int(row["V"]) for row in ours)
    chosen = [row for row in ours if (row["V"], row["B"], row["beams"]) == (str(words), "1", "1")]
    rates = ", ".join(f"{float(row['speedup']):.2f}x in {row['dtype']}" for row in chosen)
    return f"over it we are at {rates} (V = {words})"


def gains_table() -> str:
    """The README's summary: geometric means and the worst row."""
    found = [row for row in rows("sequence_cpu") if row["contender"] == "seq2seq_ext"]
    lines = ["| against eager PyTorch on the same CPU | mean | worst | best |", "|---|---|---|---|"]

    def add(what: str, chosen: list[Row], column: str = "speedup") -> None:
        speedups = [float(row[column]) for row in chosen]
        lines.append(f"| {what} | {mean(speedups)} | {min(speedups):.2f}x | {max(speedups):.2f}x |")

    for cell in ("LSTM", "GRU"):
        for mode in ("inference", "training"):
            for dtype in ("float32", "bfloat16"):
                name = "inference" if mode == "inference" else "forward + backward"
                add(
                    f"{cell} sequence, {name}, {dtype}",
                    [r for r in found if (r["cell"], r["mode"], r["dtype"]) == (cell, mode, dtype)],
                )
    steps = [row for row in rows("step_cpu") if row["contender"] == "seq2seq_ext"]
    for name, ops in (
        ("LSTMCell, GRUCell, one step", ("LSTMCell", "GRUCell")),
        ("attention step, S = 30", ("attention S=30",)),
        ("vocabulary pick, V = 8000 and 32000", ("pick V=8000", "pick V=32000")),
    ):
        add(name, [row for row in steps if row["op"] in ops])
    decoding = [row for row in rows("decode") if row["contender"] == "seq2seq_ext"]
    for dtype in ("float32", "bfloat16", "int8"):
        chosen = [row for row in decoding if (row["beams"], row["dtype"]) == ("1", dtype)]
        add(f"greedy decoding, B 1 to 64, {dtype}, over float32 *", chosen, "speedup_nn")
    return "\n".join(
        [
            *lines,
            "",
            "\\* torch.nn's layers, eager or compiled, whichever is faster. At batch 1 an output "
            f"layer by a compiled `addmv` is faster still: {hand_tuned(decoding)}.",
            "",
            f"({conditions(rows('sequence_cpu')[0])}; decoding {conditions(decoding[0])}; "
            "every row, and how: [benchmarks](benchmarks/README.md).)",
        ]
    )


TABLES = {
    "README.md": {"gains": gains_table},
    "benchmarks/README.md": {
        "sequence": sequence_table,
        "step": step_table,
        "decode": decode_table,
    },
}


def rewritten(text: str, tables: dict) -> str:
    """`text` with what stands between each table's marks replaced by the table."""
    for name, make in tables.items():
        begin = BEGIN.format(name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(END)
        text = f"{before}{begin}\n{make()}\n{END}{after}"
    return text


def main() -> None:
    for name, tables in TABLES.items():
        path = ROOT / name
        path.write_text(rewritten(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
