# SPDX-License-Identifier: MIT
"""Attention weights as a picture or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from seq2seq_ext.cli.console import CommandError
from seq2seq_ext.training.files import write_text

MAX_PANELS = 12
PICTURES = (".png", ".pdf", ".svg")


class Alignment(NamedTuple):
    """The weights of one translation: T target tokens over S source tokens."""

    source: list[str]
    target: list[str]
    weights: Tensor  # (T, S)


def draw_attention(axes: Any, alignment: Alignment) -> Any:
    """A heat map on matplotlib axes; returns the image, for a colour bar."""
    source, target, weights = alignment
    image = axes.imshow(weights.tolist(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=45, ha="right")
    axes.set_yticks(range(len(target)), target)
    axes.set(title="attention weights", xlabel="source", ylabel="target")
    return image


def check_file(path: Path, sentences: int) -> None:
    """Raises CommandError where this many sentences cannot be written into such a file."""
    if path.suffix not in (*PICTURES, ".jsonl"):
        endings = ", ".join((*PICTURES, ".jsonl"))
        raise CommandError(f"{path}: --attention writes files ending in {endings}")
    if path.suffix in PICTURES and sentences > MAX_PANELS:
        raise CommandError(
            f"--attention draws at most {MAX_PANELS} sentences, got {sentences}; "
            "a file ending in .jsonl takes any number"
        )


def write_attention(path: Path, alignments: Sequence[Alignment]) -> None:
    """A panel or a line for each. Raises CommandError: the file cannot be written."""
    try:
        if path.suffix in PICTURES:
            _draw(path, alignments)
        else:
            write_text(path, "".join(_line(alignment) + "\n" for alignment in alignments))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: cannot be written ({error})") from None


def _line(alignment: Alignment) -> str:
    weights = [[round(weight, 6) for weight in row] for row in alignment.weights.tolist()]
    fields = {"source": alignment.source, "target": alignment.target, "weights": weights}
    return json.dumps(fields, ensure_ascii=False)


def _draw(path: Path, alignments: Sequence[Alignment]) -> None:
    from matplotlib.figure import Figure

    columns = min(len(alignments), 3)
    rows = -(-len(alignments) // columns)
    figure = Figure(figsize=(6 * columns, 4.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, alignment in zip(axes, alignments, strict=False):
        figure.colorbar(draw_attention(panel, alignment), ax=panel)
    for panel in axes[len(alignments) :]:
        panel.axis("off")
    figure.savefig(path, dpi=120)
