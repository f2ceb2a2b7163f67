# SPDX-License-Identifier: MIT
"""`translate`: sentences from the command line, a file or stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seq2seq_ext.cli.attention import Alignment, check_file, write_attention
from seq2seq_ext.cli.console import CommandError, log, set_threads, stdin_bytes
from seq2seq_ext.cli.options import Decoding, in_options
from seq2seq_ext.data.corpus import check_lines, decode_lines, read_lines
from seq2seq_ext.training.files import write_text
from seq2seq_ext.training.translator import Hypothesis, ModelError, Translator


def _read(sentences: list[str], name: str) -> list[str]:
    if sentences:
        return check_lines(sentences, "sentence")
    if name == "-":
        return check_lines(decode_lines(stdin_bytes(), "stdin"), "stdin")
    return check_lines(read_lines(name), name)


class _Output:
    """How hypotheses are printed: one a line, numbers before the text, tabs between."""

    def __init__(self, *, scores: bool, n_best: bool) -> None:
        self.scores, self.n_best = scores, n_best

    def lines(self, number: int, hypotheses: Sequence[Hypothesis]) -> list[str]:
        """number: of the sentence, from 1; printed where it has several hypotheses."""
        out = []
        for hypothesis in hypotheses:
            columns = [str(number)] if self.n_best else []
            if self.scores:
                columns += [f"{hypothesis.score:.4f}", f"{hypothesis.normalized:.4f}"]
            out.append("\t".join([*columns, hypothesis.text]))
        return out


def _interactive(translator: Translator, options: dict[str, Any], output: _Output) -> None:
    """Line by line, for a person at a terminal."""
    log.print("one sentence a line, Ctrl-D ends")
    number = 0
    try:
        for line in sys.stdin:
            if line.strip():
                number += 1
                [found] = _decode(translator, [line], options)
                print("\n".join(output.lines(number, found)), flush=True)
    except UnicodeDecodeError as error:
        raise CommandError(f"stdin: not {error.encoding}") from None


def _decode(
    translator: Translator, texts: list[str], options: dict[str, Any], batch_size: int = 1
) -> list[list[Hypothesis]]:
    try:
        return translator.hypotheses(texts, batch_size=batch_size, **options)
    except ModelError as error:
        raise CommandError(in_options(str(error))) from None


def _alignments(
    translator: Translator, texts: list[str], found: list[list[Hypothesis]]
) -> list[Alignment]:
    """Of the best translation of each text."""
    out = []
    for text, (best, *_) in zip(texts, found, strict=True):
        assert best.attention is not None
        source = translator.source.display(translator.source.encode(text))
        weights = best.attention[:, : len(source)]
        out.append(Alignment(source, translator.target.display(best.ids), weights))
    return out


def run(
    model: Path,
    sentences: list[str],
    name: str,
    output: Path | None,
    *,
    decoding: Decoding,
    scores: bool,
    attention: Path | None,
    batch_size: int,
    threads: int | None,
) -> None:
    set_threads(threads)
    translator = Translator.load(model)
    options = decoding.options()
    several = translator.model.generation_config.num_return_sequences
    written = _Output(scores=scores, n_best=(decoding.n_best or several) > 1)
    if not sentences and name == "-" and output is None and sys.stdin.isatty():
        if attention is not None:
            raise CommandError("--attention needs its sentences as arguments or from a file")
        _interactive(translator, options, written)
        return
    texts = _read(sentences, name)
    if not texts:
        raise CommandError(f"{'stdin' if name == '-' else name}: no lines")
    if attention is not None:
        check_file(attention, len(texts))
        options["output_attentions"] = True
    found = _decode(translator, texts, options, batch_size)
    if attention is not None:  # first: a path that cannot be written leaves stdout empty
        write_attention(attention, _alignments(translator, texts, found))
    lines = [line for i, rows in enumerate(found, 1) for line in written.lines(i, rows)]
    if output is None:
        print("\n".join(lines), flush=True)
        return
    try:
        write_text(output, "\n".join(lines) + "\n")
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror})") from None
