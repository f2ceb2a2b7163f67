# SPDX-License-Identifier: MIT
"""The pictures of the READMEs, drawn from the stored rows: `python -m benchmarks.plot`.

The same rows give the same bytes with the same matplotlib. Each picture carries a digest of the
rows and of this file; a test compares it, so that pictures and rows cannot drift apart.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .common import OURS, RESULTS, results_folder
from .stored import Row, cases, ours, rows

PICTURES = Path(__file__).resolve().parent / "pictures"
INK, NN, BEST = "#1f4e79", "#c8553d", "#e0a030"
STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "seq2seq_ext",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def numbers(found: Iterable[Row], column: str) -> list[float]:
    return [float(row[column]) for row in found]


def plain_ticks(axis: Any, ticks: Iterable[float], suffix: str = "") -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    ticks = list(ticks)
    axis.set_ticks(ticks, [f"{tick:g}{suffix}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def log_scales(*axes: Any) -> None:
    """Ticks at powers of ten alone keep a picture small."""
    from matplotlib.ticker import NullLocator

    for axis in axes:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_minor_locator(NullLocator())


def legend(figure: Any, *axes: Any) -> None:
    """One for all panels, below them."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles, labels = ([x for pair in found for x in pair[i]] for i in (0, 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=6)


def speedup(figure: Any) -> None:
    """Over torch.nn and over the fastest peer, by size."""
    panels = {
        "inference, float32": ours(rows("sequence_cpu")),
        "inference, bfloat16": ours(rows("sequence_cpu")),
        "training step, float32": ours(rows("train_cpu")),
    }
    figure.set_size_inches(10, 5)
    axes = figure.subplots(1, len(panels), sharex=True)
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        dtype = title.split(", ")[1]
        chosen = [r for r in found if (r["set"], r["dtype"]) == ("sequence", dtype)]
        names = [f"{r['cell']} {r['H']}, {r['B']}" for r in chosen]
        places = [-float(i) for i in range(len(chosen))]
        over_nn, over_best = (numbers(chosen, column) for column in ("speedup", "speedup_best"))
        axis.axvline(1, color="#555555", linewidth=1)
        axis.hlines(places, over_best, over_nn, color="#cccccc", linewidth=1.5)
        axis.plot(over_nn, places, "o", color=NN, markersize=5, label="over torch.nn")
        axis.plot(over_best, places, "D", color=INK, markersize=4, label="over the fastest peer")
        axis.set_xscale("log")
        axis.set_yticks(places, names)
        axis.set_title(f"{title}; cell H, B")
        axis.grid(axis="y", visible=False)
    # The panels share this axis, and so its ticks.
    plain_ticks(axes[0].xaxis, (0.5, 1, 2, 4, 8, 16), "x")
    axes[0].set_xlim(0.4, 20)
    legend(figure, axes[0])


def roofline(figure: Any) -> None:
    """Rates against operations a byte, under the machine's ceilings."""
    figure.set_size_inches(10, 4)
    axes = figure.subplots(1, 2)
    found = [row for row in rows("sequence_cpu") if row["set"] == "sequence"]
    stored = {
        row["what"]: float(row["rate"]) for row in rows("ceilings") if row["bench"] == "sequence"
    }
    for axis, dtype in zip(axes, ("float32", "bfloat16"), strict=True):
        peak = max(rate for what, rate in stored.items() if what.endswith(" " + dtype))
        chosen = [row for row in found if row["dtype"] == dtype]
        x = [0.2, 500.0]
        axis.plot(x, [peak, peak], color="#555555", linewidth=1)
        axis.annotate(f"{peak:.0f} GFLOP/s", (x[1], peak * 1.06), ha="right", color="#555555")
        for level, side in (("L2", "bottom"), ("L3", "top"), ("DRAM", "bottom")):
            rate = max(stored.get(f"{level} read", 0), stored.get(f"{level} copy", 0))
            if rate:
                axis.plot([x[0], peak / rate], [x[0] * rate, peak], color="#aaaaaa", linewidth=1)
                axis.annotate(f"{level} {rate:.0f} GB/s", (x[0], x[0] * rate), va=side)
        for name, style in (("torch.nn", {"color": NN, "marker": "o"}), (OURS, {"color": INK})):
            mine = [row for row in chosen if row["contender"] == name]
            intensity = [float(row["flops"]) / float(row["bytes"]) for row in mine]
            style = {"marker": "D", "linestyle": "none", "markersize": 4, **style}
            axis.plot(intensity, numbers(mine, "gflops"), label=name, **style)
        log_scales(axis)
        axis.set_xlabel("operations a byte")
        axis.set_title(f"inference, {dtype}: GFLOP/s")
    legend(figure, axes[0])


def steps(figure: Any) -> None:
    """Microseconds a time step against H and against B, float32 inference."""
    figure.set_size_inches(10, 4)
    axes = figure.subplots(1, 4, sharey=True)
    found = [r for r in rows("sequence_cpu") if r["set"] == "sequence" and r["dtype"] == "float32"]
    panels = [(cell, axis) for cell in ("LSTM", "GRU") for axis in ("H", "B")]
    for axis, (cell, grows) in zip(axes, panels, strict=True):
        stays = "B" if grows == "H" else "H"
        mine = [row for row in found if row["cell"] == cell]
        for index, fixed in enumerate(sorted({row[stays] for row in mine}, key=int)):
            curve = cases([row for row in mine if row[stays] == fixed], grows)
            x = [int(size) for (size,) in curve]
            for label, color, style in (
                ("torch.nn", NN, ":"),
                ("fastest peer", BEST, "--"),
                (OURS, INK, "-"),
            ):
                y = [_median(case, label) / float(case[OURS]["T"]) * 1e3 for case in curve.values()]
                axis.plot(
                    x,
                    y,
                    style,
                    color=color,
                    marker="o",
                    markersize=3,
                    label=None if index else label,
                )
            axis.annotate(f"{stays} {fixed}", (x[-1], y[-1]), (4, -3), textcoords="offset points")
        log_scales(axis)
        plain_ticks(axis.xaxis, sorted({int(row[grows]) for row in mine}))
        axis.set_xlabel(grows)
        axis.set_title(f"{cell}: us a step over {grows}")
    legend(figure, axes[0])


def _median(case: Mapping[str, Row], label: str) -> float:
    name = case[OURS]["best_peer"] if label == "fastest peer" else label
    return float(case[name]["median_ms"])


def growth(figure: Any) -> None:
    """Time and memory over T, B, H and V."""
    figure.set_size_inches(10, 5.5)
    axes = figure.subplots(2, 4)
    found = rows("growth_cpu")
    shown = {"LSTM training step": "-", "LSTM inference": "--", "vocabulary pick": "-"}
    for column, grows in enumerate("TBHV"):
        for row, (what, unit) in enumerate((("median_ms", "ms"), ("peak_mb", "MB"))):
            axis = axes[row][column]
            for op, style in shown.items():
                for name, color in (("torch.nn", NN), (OURS, INK)):
                    curve = [
                        r
                        for r in found
                        if (r["op"], r["axis"], r["contender"]) == (op, grows, name)
                        and float(r[what] or 0) > 0
                    ]
                    if curve:
                        label = f"{op}, {name}" if (grows, row) in (("T", 0), ("V", 0)) else None
                        x, y = numbers(curve, "size"), numbers(curve, what)
                        axis.plot(x, y, style, color=color, marker="o", markersize=2.5, label=label)
            log_scales(axis)
            axis.set_title(f"{unit} over {grows}")
    legend(figure, axes[0][0], axes[0][3])


# Each picture: how it is drawn, from which rows.
DRAWN: Mapping[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "speedup": (speedup, ("sequence_cpu", "train_cpu")),
    "roofline": (roofline, ("sequence_cpu", "ceilings")),
    "steps": (steps, ("sequence_cpu",)),
    "growth": (growth, ("growth_cpu",)),
}


def digest(name: str) -> str:
    """Of the rows of a picture, and of what draws it."""
    found = hashlib.sha256(Path(__file__).read_bytes())
    for file in DRAWN[name][1]:
        path = results_folder() / f"{file}.csv"
        found.update(path.read_bytes() if path.exists() else b"")
    return found.hexdigest()


def digest_of(picture: Path) -> str:
    """What a stored picture says it was drawn from."""
    found = re.search(r"rows ([0-9a-f]{64})", picture.read_text(encoding="utf-8"))
    return found[1] if found else ""


def draw(name: str, folder: Path) -> Path:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    path = folder / f"{name}.svg"
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        DRAWN[name][0](figure)
        metadata = {"Date": None, "Description": f"rows {digest(name)}"}
        figure.savefig(path, format="svg", metadata=metadata)
    # No blanks at the ends of lines: version control would complain.
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE), encoding="utf-8")
    return path


def main() -> int:
    stored = results_folder().resolve() == RESULTS.resolve()
    folder = PICTURES if stored else results_folder() / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, files) in DRAWN.items():
        missing = [file for file in files if not rows(file)]
        if missing:
            print(f"no picture {name}: no rows of {', '.join(missing)}", file=sys.stderr)
            continue
        print(draw(name, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
