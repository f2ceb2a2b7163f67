# SPDX-License-Identifier: MIT
"""The tables of rows: sequences, training steps, single steps, decoding, growth, ceilings."""

from __future__ import annotations

from .common import OURS
from .marks import at_roofline
from .stored import Row, cases, conditions, rows

NONE = "No rows are stored yet."
OVER = ("over torch", "over the best peer", "of the roofline")


def markdown(*lines: str | list[str]) -> str:
    """The first list is the header."""
    out: list[str] = []
    ruled = False
    for line in lines:
        if isinstance(line, str):
            out.append(line)
            continue
        out.append("| " + " | ".join(line) + " |")
        if not ruled:
            out.append("|" + "---|" * len(line))
            ruled = True
    return "\n".join(out)


def number(text: str, scale: float = 1.0) -> str:
    """Three significant digits."""
    value = float(text) * scale
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def fastest(case: dict[str, Row], prefix: str, scale: float = 1.0) -> str:
    """The median of the fastest contender whose name begins so."""
    found = [row["median_ms"] for name, row in case.items() if name.startswith(prefix)]
    return number(min(found, key=float), scale) if found else ""


def versus(row: Row) -> list[str]:
    return [
        f"{float(row['speedup']):.2f}x",
        f"{float(row['speedup_best']):.2f}x",
        f"{float(row['roofline']):.0%}",
    ]


def megabytes(row: Row) -> str:
    return f"{float(row['peak_mb']):.1f}" if row["peak_mb"] else ""


def sequence_table() -> str:
    """Every inference row: all peers, ours, over torch.nn and over the fastest peer."""
    found = rows("sequence_cpu")
    if not found:
        return NONE
    peers = ("torch.nn", "torch.compile", "ONNX Runtime", "OpenVINO")
    lines = [["cell", "dtype", "T", "H", "B", *peers, "ours", *OVER, "MB: torch.nn", "ours"]]
    for key, case in cases(found, "cell", "dtype", "T", "H", "B").items():
        mine = case[OURS]
        times = [fastest(case, name) for name in (*peers, OURS)]
        memory = [megabytes(case["torch.nn"]), megabytes(mine)]
        lines.append([*key, *times, *versus(mine), *memory])
    return markdown(
        f"One layer, I = H, padded; {conditions(found[0])}; {found[0]['peers']}. Milliseconds.",
        "",
        *lines,
    )


def train_table() -> str:
    """Every training row: torch.nn and torch.compile, ours."""
    found = rows("train_cpu")
    if not found:
        return NONE
    times = ("torch.nn", "torch.compile", OURS)
    lines = [["cell", "dtype", "", "H", "B", *times[:2], "ours", *OVER, "MB: torch.nn", "ours"]]
    for (kind, *key), case in cases(found, "set", "cell", "dtype", "H", "B").items():
        mine = case[OURS]
        what = "both directions, lengths 5..T" if kind == "lengths" else ""
        found_times = [fastest(case, name) for name in times]
        memory = [megabytes(case["torch.nn"]), megabytes(mine)]
        lines.append([*key[:2], what, *key[2:], *found_times, *versus(mine), *memory])
    return markdown(
        f"One layer, T = {found[0]['T']}, I = H; {conditions(found[0])}. Milliseconds.", "", *lines
    )


def step_table() -> str:
    """Every single-step row."""
    found = rows("step_cpu")
    if not found:
        return NONE
    lines = [["op", "V", "H", "B", "torch", "torch.compile", "ours", *OVER]]
    for key, case in cases(found, "op", "V", "H", "B").items():
        times = [fastest(case, n, 1e3) for n in ("torch.compile", OURS)]
        lines.append([*key, number(case["torch"]["median_ms"], 1e3), *times, *versus(case[OURS])])
    return markdown(
        f"float32, attention over 30 positions; {conditions(found[0])}. Microseconds.", "", *lines
    )


def bound_by_roofline(row: Row) -> str:
    """Of a decoding row that misses its mark, where the roofline does not allow it."""
    speedup, mark = float(row["speedup_nn"]), float(row["mark"])
    if speedup >= mark or not row.get("roofline"):  # older rows have none
        return ""
    return ", the roofline binds" if at_roofline(speedup, float(row["roofline"])) < mark else ""


def decode_table() -> str:
    """The best peers, and ours in each dtype over torch.nn in float32 (at batch 1 over the addmv
    variant, too); at batch 1 how fast the weights are read."""
    found = rows("decode")
    if not found:
        return NONE
    best_of = [f"best peer, {dtype}" for dtype in ("float32", "bfloat16")]
    mine_of = [f"ours, {dtype}" for dtype in ("float32", "bfloat16", "int8")]
    lines = [["V", "H", "B", "beams", *best_of, *mine_of]]
    reads = [["V", "H", "weights", "MB a step", "GB/s", "reading", ""]]
    by_case: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        by_case.setdefault((row["V"], row["H"], row["B"], row["beams"]), []).append(row)
    for key, case in by_case.items():
        peers = [row for row in case if row["contender"] != OURS]
        text = [*key]
        for dtype in ("float32", "bfloat16"):
            best = max(
                (row for row in peers if row["dtype"] == dtype),
                key=lambda row: float(row["tokens_per_s"]),
            )
            text.append(f"{float(best['tokens_per_s']):.0f} ({best['contender']})")
        apart = any(peer["contender"].endswith("addmv") for peer in peers)
        for row in case:
            if row["contender"] != OURS:
                continue
            mark = f" ({row['mark']}x{bound_by_roofline(row)})" if row["mark"] else ""
            more = f"; {float(row['speedup']):.2f}x addmv" if apart else ""
            if row.get("roofline"):
                more += f"; {float(row['roofline']):.0%}"
            over = f"{float(row['speedup_nn']):.2f}x{mark}{more}"
            text.append(f"{float(row['tokens_per_s']):.0f}: {over}")
            if row["share"]:
                rates = [row[name] for name in ("weight_mb", "gb_per_s", "read_gb_per_s")]
                shown = [f"{float(rate):.1f}" for rate in rates]
                share = f"{float(row['share']):.0%}"
                reads.append([row["V"], row["H"], row["dtype"], *shown, share])
        lines.append(text)
    percent = "; in per cent the share of the roofline" if found[0].get("roofline") else ""
    first = markdown(
        f"{conditions(found[0])}. Tokens a second; over torch.nn's layers in float32, eager or "
        f"compiled; in brackets the mark{percent}.",
        "",
        *lines,
    )
    return first + "\n\n" + markdown("Batch 1, mark 70 % of reading:", "", *reads)


def growth_table() -> str:
    """The fitted exponents."""
    found = rows("growth_cpu")
    if not found:
        return NONE
    lines = [["", "grows", "from", "to", "time: torch.nn", "ours", "memory: torch.nn", "ours"]]
    for key in dict.fromkeys((row["op"], row["axis"]) for row in found):
        mine = [row for row in found if (row["op"], row["axis"]) == key]
        by_name = {row["contender"]: row for row in mine}
        fitted = [
            f"{float(by_name[name][column]):.2f}" if by_name[name][column] else ""
            for column in ("time_exponent", "memory_exponent")
            for name in ("torch.nn", OURS)
        ]
        lines.append([*key, mine[0]["size"], mine[-1]["size"], *fitted])
    return markdown(f"float32; {conditions(found[0])}. Fitted exponents.", "", *lines)


def ceilings_table() -> str:
    """Of each run, with the machine's highest rates beside."""
    found = rows("ceilings")
    if not found:
        return NONE
    benches = list(dict.fromkeys(row["bench"] for row in found))
    lines = [["", "unit", "MiB", *(f"before {bench}" for bench in benches)]]
    for what, unit in dict.fromkeys((row["what"], row["unit"]) for row in found):
        by_bench = {row["bench"]: row for row in found if row["what"] == what}
        size = next(iter(by_bench.values()))["mib"]
        rates = [number(by_bench[b]["rate"]) if b in by_bench else "" for b in benches]
        lines.append([what, unit, size, *rates])
    return markdown(f"{conditions(found[0])}.", "", *lines)
