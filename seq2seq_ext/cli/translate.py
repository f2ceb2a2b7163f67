# SPDX-License-Identifier: MIT
"""`translate`: sentences from the command line, a file or stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from seq2seq_ext.cli.attention import Alignment, check_file, write_attention
from seq2seq_ext.cli.console import CommandError, log, set_threads
from seq2seq_ext.cli.hypotheses import Layout, decode
from seq2seq_ext.cli.options import Decoding, DecodingDtype, prepare
from seq2seq_ext.cli.partial import Stream, is_stream
from seq2seq_ext.cli.stream import Job, translate_lines
from seq2seq_ext.data.corpus import check_lines, decode_lines, read_lines
from seq2seq_ext.training.files import write_text
from seq2seq_ext.training.translator import Hypothesis, Translator


def _read(sentences: list[str], name: str) -> list[str]:
    if sentences:
        return check_lines(sentences, "sentence")
    if name == "-":
        return check_lines(decode_lines(sys.stdin.buffer.read(), "stdin"), "stdin")
    return check_lines(read_lines(name), name)


def _interactive(translator: Translator, options: dict[str, Any], layout: Layout) -> None:
    """Line by line, for a person at a terminal."""
    log.print("one sentence a line, Ctrl-D ends")
    number = 0
    try:
        for line in sys.stdin:
            if line.strip():
                number += 1
                [found] = _decode(translator, [line], options)
                print("\n".join(layout.lines(number, found)), flush=True)
    except UnicodeDecodeError as error:
        raise CommandError(f"stdin: not {error.encoding}") from None


def _decode(
    translator: Translator, texts: list[str], options: dict[str, Any], batch_size: int = 1
) -> list[list[Hypothesis]]:
    found: list[list[Hypothesis]] = [[] for _ in texts]
    for batch in decode(translator, texts, batch_size=batch_size, **options):
        for index, rows in batch.items():
            found[index] = rows
    return found


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


def _at_once(
    translator: Translator,
    texts: list[str],
    output: Path | None,
    *,
    layout: Layout,
    options: dict[str, Any],
    attention: Path | None,
    batch_size: int,
) -> None:
    """Sentences that all fit into memory."""
    if attention is not None:
        check_file(attention, len(texts))
        options = {**options, "output_attentions": True}
    found = _decode(translator, texts, options, batch_size)
    if attention is not None:  # first: a path that cannot be written leaves stdout empty
        write_attention(attention, _alignments(translator, texts, found))
    lines = [line for i, rows in enumerate(found, 1) for line in layout.lines(i, rows)]
    text = "".join(f"{line}\n" for line in lines)
    if output is None or is_stream(output):
        sink = Stream(output)
        sink.write(text)
        sink.finish()
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror})") from None


def run(
    model: Path,
    sentences: list[str],
    name: str,
    output: Path | None,
    *,
    decoding: Decoding,
    dtype: DecodingDtype | None,
    scores: bool,
    attention: Path | None,
    resume: bool,
    window: int,
    batch_size: int,
    threads: int | None,
) -> None:
    set_threads(threads)
    if resume and (sentences or attention is not None):
        what = "--attention" if attention is not None else "sentences as arguments"
        raise CommandError(f"--resume goes on with the lines of --input: not with {what}")
    translator = Translator.load(model)
    found_dtype = prepare(translator, dtype)
    options = decoding.options()
    several = translator.model.generation_config.num_return_sequences
    layout = Layout(scores=scores, count=decoding.n_best or several)
    if not sentences and name == "-" and output is None and sys.stdin.isatty():
        if attention is not None:
            raise CommandError("--attention needs its sentences as arguments or from a file")
        _interactive(translator, options, layout)
    elif sentences or attention is not None:
        texts = _read(sentences, name)
        if not texts:
            raise CommandError(f"{'stdin' if name == '-' else name}: no lines")
        _at_once(
            translator,
            texts,
            output,
            layout=layout,
            options=options,
            attention=attention,
            batch_size=batch_size,
        )
    else:
        job = Job(translator, found_dtype, options, layout, window, batch_size)
        translate_lines(job, model, name, output, resume=resume)
