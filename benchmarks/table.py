# SPDX-License-Identifier: MIT
"""The tables of the READMEs, made from the stored rows: `python -m benchmarks.table` rewrites them.

A test compares the READMEs with what this makes, so that figures and rows cannot drift apart. Rows
of another folder (SEQ2SEQ_EXT_RESULTS) are shown and leave the READMEs alone.
"""

from __future__ import annotations

from . import marks
from .common import RESULTS, results_folder
from .machine import ROOT
from .stored import Row, conditions, mean, ours, rows
from .table_rows import (
    NONE,
    ceilings_table,
    decode_table,
    growth_table,
    markdown,
    sequence_table,
    step_table,
    train_table,
)

AGAIN = "again"  # the folder beside the rows with those of a second run of the same commit
BEGIN, END = "<!-- from benchmarks/results: {} -->", "<!-- end -->"


def marks_table() -> str:
    """Each mark, what was reached, in a second run, too, and what the roofline allows."""
    files = dict.fromkeys(mark.file for mark in marks.MARKS)
    stored = {file: rows(file) for file in files}
    second = {file: rows(f"{AGAIN}/{file}") for file in files}
    twice = any(second.values())
    lines = [["mark", "over", "of", "mark", "reached", "worst row"]]
    lines[0] += [f"possible at {marks.SHARE:.0%} of the roofline"]
    lines[0] += [*(["in a second run"] if twice else []), ""]
    for mark in marks.MARKS:
        verdict = marks.verdict(mark, stored[mark.file])
        of = "worst row" if mark.worst else "geometric mean"
        text = [mark.what, mark.over, of, f"{mark.value:g}x"]
        other = marks.verdict(mark, second[mark.file])
        again = ["" if other is None else f"{other.reached:.2f}x"] if twice else []
        if verdict is None:
            lines.append([*text, "", "", "", *again, "not measured"])
            continue
        outcome = "met" if verdict.met else "**missed**"
        if not verdict.met and verdict.forbidden:
            outcome += ": the roofline binds"
        figures = (verdict.reached, verdict.worst, verdict.at_roofline)
        lines.append([*text, *(f"{figure:.2f}x" for figure in figures), *again, outcome])
    if rows("growth_cpu"):
        missed = marks.growth_missed(rows("growth_cpu"))
        lacking = marks.growth_lacking(rows("growth_cpu"))
        text = ["time and memory of ours over T and B", "", "exponent", f"{marks.GROWTH:g}"]
        again = [""] if twice else []
        outcome = "**missed**: " + "; ".join(missed) if missed else "met"
        if lacking:
            outcome = f"not measured: {', '.join(lacking)}"
        lines.append([*text, "", "", "", *again, outcome])
    return markdown(*lines)


def hand_tuned(found: list[Row]) -> str:
    """What is left at batch 1 of the largest vocabulary against the best peer of all."""
    words = max(int(row["V"]) for row in found)
    chosen = [row for row in found if (row["V"], row["B"], row["beams"]) == (str(words), "1", "1")]
    rates = ", ".join(f"{float(row['speedup']):.2f}x in {row['dtype']}" for row in chosen)
    return f"over it we are at {rates} (V = {words})"


def origin() -> str:
    """Where the summary's rows come from, once if all come from the same."""
    said: dict[str, list[str]] = {}
    for file, name in (
        ("sequence_cpu", "sequences"),
        ("train_cpu", "training"),
        ("step_cpu", "steps"),
        ("decode", "decoding"),
    ):
        said.setdefault(conditions(rows(file)[0]), []).append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(names)}: {where}" for where, names in said.items())


def sizes(chosen: list[Row]) -> str:
    """What the rows were measured at: "T = 50, H 256 to 1024"."""
    parts = []
    for name in ("V", "T", "H", "B"):
        values = sorted({int(row[name]) for row in chosen if row.get(name)})
        if values:
            several = f"{name} {values[0]} to {values[-1]}"
            parts.append(several if len(values) > 1 else f"{name} = {values[0]}")
    return ", ".join(parts)


def gains_table() -> str:
    """The README's summary: geometric means, the worst and the best row."""
    lines = [["on the same CPU", "sizes", "over torch.nn, eager: mean", "worst", "best"]]
    lines[0] += ["over the fastest peer: mean", "worst", "best"]

    def add(what: str, chosen: list[Row], columns: tuple[str, ...] = ("speedup", "speedup_best")):
        if not chosen:
            return
        line = [what, sizes(chosen)]
        for column in columns:
            found = [float(row[column]) for row in chosen]
            line += [f"{value:.2f}x" for value in (mean(found), min(found), max(found))]
        lines.append([*line, *[""] * (8 - len(line))])

    for file, kind, name in (
        ("sequence_cpu", "sequence", "sequence, inference"),
        ("train_cpu", "sequence", "sequence, forward + backward"),
        ("train_cpu", "lengths", "both directions, lengths 5..T, forward + backward"),
    ):
        found = ours(rows(file))
        for dtype in ("float32", "bfloat16"):
            for cell in ("LSTM", "GRU"):
                add(
                    f"{cell} {name}, {dtype}",
                    [r for r in found if (r["set"], r["cell"], r["dtype"]) == (kind, cell, dtype)],
                )
    small = [
        r for r in ours(rows("sequence_cpu")) if (r["set"], r["dtype"]) == ("small", "float32")
    ]
    add("LSTM, GRU sequence, small, inference, float32", small)
    steps = ours(rows("step_cpu"))
    for name, ops in (
        ("LSTMCell, GRUCell, one step", ("LSTMCell", "GRUCell")),
        ("attention step, S = 30", ("attention",)),
        ("vocabulary pick", ("pick",)),
    ):
        add(name, [row for row in steps if row["op"] in ops])
    decoding = ours(rows("decode"))
    for dtype in ("float32", "bfloat16", "int8"):
        chosen = [row for row in decoding if (row["beams"], row["dtype"]) == ("1", dtype)]
        add(f"greedy decoding, {dtype} **, over float32 *", chosen, ("speedup_nn",))
    return "\n".join(
        [
            markdown(*lines),
            "",
            "\\* torch.nn's layers, eager or compiled, whichever is faster. At batch 1 an output "
            f"layer by a compiled `addmv` is faster still: {hand_tuned(decoding)}.",
            "",
            "\\*\\* The weights packed beforehand: `model.prepare_for_decoding(dtype)`, or "
            "`translate --dtype`.",
            "",
            "Peers: `torch.compile`; for inference of sequences ONNX Runtime and OpenVINO, too, "
            "and ours with `nn.freeze`. "
            f"({origin()}. Every row, and how: [benchmarks](benchmarks/README.md).)",
        ]
    )


TABLES = {
    "README.md": {"gains": gains_table},
    "benchmarks/README.md": {
        "marks": marks_table,
        "ceilings": ceilings_table,
        "sequence": sequence_table,
        "train": train_table,
        "step": step_table,
        "decode": decode_table,
        "growth": growth_table,
    },
}


def rewritten(text: str, tables: dict) -> str:
    """`text` with what stands between each table's marks replaced by the table."""
    for name, make in tables.items():
        begin = BEGIN.format(name)
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"no place for the table {name!r}: {begin}")
        _, _, after = rest.partition(END)
        text = f"{before}{begin}\n{make()}\n{END}{after}"
    return text


def main() -> None:
    if results_folder().resolve() != RESULTS.resolve():
        made = (make() for make in TABLES["benchmarks/README.md"].values())
        print("\n\n".join(table for table in made if table != NONE))
        return
    for name, tables in TABLES.items():
        path = ROOT / name
        path.write_text(rewritten(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
