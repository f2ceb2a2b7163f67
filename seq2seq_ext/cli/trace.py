# SPDX-License-Identifier: MIT
"""`trace`: one sentence through the model, with the symbols of the equations.

x_t is the embedding of source token t, h_t the encoder's state after it, c the context, s_t' the
decoder's state and y_t' the token it picks; y_0 is <sos>.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from seq2seq_ext.cli.attention import Alignment, draw_attention
from seq2seq_ext.cli.console import CommandError, console, set_threads
from seq2seq_ext.training.translator import Translator

TOP = 3


@dataclass(frozen=True)
class Trace:
    """All of one translation; S source tokens, T steps."""

    sentence: str
    translation: str
    source: list[str]  # S tokens
    target: list[str]  # T tokens, <eos> included
    x: Tensor  # (S, E)
    h: Tensor  # (S, D*H)
    c: Tensor  # (T, C) with attention, (1, C) without
    s: Tensor  # (T, H)
    probabilities: Tensor  # (T, 3)
    candidates: list[list[str]]  # (T, 3)
    attention: Tensor | None  # (T, S)


def make_trace(translator: Translator, sentence: str) -> Trace:
    """Translates `sentence` and keeps everything on the way."""
    src, lengths = translator.encode([sentence])
    model = translator.model.eval()
    with torch.inference_mode():
        encoded = model.encoder(src, lengths, return_embedded=True)
    [(_, found)] = translator.generate(
        [sentence],
        output_scores=True,
        output_hidden_states=True,
        output_attentions=model.decoder.attention is not None,
    )
    assert encoded.embedded is not None
    assert found.scores is not None
    assert found.hidden_states is not None
    assert found.contexts is not None
    top = found.scores[0].topk(min(TOP, found.scores.size(-1)), dim=-1)
    ids = found.sequences[0].tolist()
    return Trace(
        sentence=sentence,
        translation=translator.target.decode(ids),
        source=translator.source.display(src[0].tolist()),
        target=translator.target.display(ids),
        x=encoded.embedded[0],
        h=encoded.outputs[0],
        c=found.contexts.flatten(0, -2),
        s=found.hidden_states[0],
        probabilities=top.values.exp(),
        candidates=[translator.target.display(row) for row in top.indices.tolist()],
        attention=None if found.attentions is None else found.attentions[0],
    )


def _vector(vector: Tensor, values: int) -> str:
    first = " ".join(f"{value:+.3f}" for value in vector[:values].tolist())
    return f"|{float(vector.norm()):.3f}|  {first}{' ...' if vector.numel() > values else ''}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def print_trace(trace: Trace, values: int) -> None:
    """Norms stand between bars, then the first values of each vector."""
    encoder = _table("Encoder: h_t = f(h_{t-1}, x_t), h_0 = 0", "t", "token", "x_t", "h_t")
    for t, token in enumerate(trace.source, 1):
        row = (_vector(trace.x[t - 1], values), _vector(trace.h[t - 1], values))
        encoder.add_row(str(t), token, *row)
    console.print(encoder, "")
    one = len(trace.c) == 1 and trace.attention is None
    if one:
        console.print(f"Context: c = {_vector(trace.c[0], values)}\n")
    decoder = _table(
        "Decoder: s_t' = g(s_{t'-1}, y_{t'-1}, c), y_0 = <sos>",
        "t'",
        "y_t'",
        "most probable",
        "s_t'",
        *(() if one else ("c_t'",)),
    )
    for t, token in enumerate(trace.target):
        likely = "  ".join(
            f"{word} {probability:.3f}"
            for word, probability in zip(
                trace.candidates[t], trace.probabilities[t].tolist(), strict=True
            )
        )
        extra = () if one else (_vector(trace.c[t], values),)
        decoder.add_row(str(t + 1), token, likely, _vector(trace.s[t], values), *extra)
    console.print(decoder, "")
    if trace.attention is not None:
        weights = _table("Attention weights", "", *trace.source)
        for token, row in zip(trace.target, trace.attention.tolist(), strict=True):
            weights.add_row(token, *(f"{weight:.3f}" for weight in row))
        console.print(weights, "")
    console.print(f"{trace.sentence} -> {trace.translation}")


def plot_trace(trace: Trace, path: Path) -> None:
    """Draws the attention matrix, if there is one, and the norms of all states.

    Raises:
        CommandError: the file cannot be written, or its name has no known ending.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = 1 if trace.attention is None else 2
    figure = Figure(figsize=(6 * panels, 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if trace.attention is not None:
        alignment = Alignment(trace.source, trace.target, trace.attention)
        figure.colorbar(draw_attention(axes[0], alignment), ax=axes[0])
    norms, largest = axes[-1], 0.0
    for name, states, tokens, marker in (
        ("|h_t|", trace.h, trace.source, "o"),
        ("|s_t'|", trace.s, trace.target, "s"),
    ):
        steps = range(1, len(tokens) + 1)
        values = states.norm(dim=-1).tolist()
        largest = max(largest, *values)
        norms.plot(steps, values, marker=marker, label=name)
        for step, value, token in zip(steps, values, tokens, strict=True):
            norms.annotate(token, (step, value), textcoords="offset points", xytext=(0, 6))
    norms.set(title="state norms", xlabel="step", ylim=(0, 1.2 * largest))
    norms.xaxis.set_major_locator(MaxNLocator(integer=True))
    norms.margins(x=0.12)
    norms.legend(loc="lower right")
    figure.suptitle(f"{trace.sentence} → {trace.translation}")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: cannot be written ({error})") from None


def run(model: Path, sentence: str, *, plot: Path | None, values: int, threads: int | None) -> None:
    set_threads(threads)
    if not sentence.strip():
        raise CommandError("the sentence is empty")
    trace = make_trace(Translator.load(model), sentence)
    if plot is not None:
        plot_trace(trace, plot)  # first: a path that cannot be written leaves stdout empty
    print_trace(trace, values)
    if plot is not None:
        console.print(f"plot: {plot}")
