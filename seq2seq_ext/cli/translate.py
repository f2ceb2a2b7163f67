# SPDX-License-Identifier: MIT
"""`translate`: sentences from the command line, a file or stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from seq2seq_ext.cli.console import CommandError, log, set_threads, stdin_bytes
from seq2seq_ext.data.corpus import check_lines, decode_lines, read_lines
from seq2seq_ext.training.files import write_text
from seq2seq_ext.training.translator import Translator


def _read(sentences: list[str], name: str) -> list[str]:
    if sentences:
        return check_lines(sentences, "sentence")
    if name == "-":
        return check_lines(decode_lines(stdin_bytes(), "stdin"), "stdin")
    return check_lines(read_lines(name), name)


def _interactive(translator: Translator) -> None:
    """Line by line, for a person at a terminal."""
    log.print("one sentence a line, Ctrl-D ends")
    try:
        for line in sys.stdin:
            if line.strip():
                print(translator.translate([line])[0], flush=True)
    except UnicodeDecodeError as error:
        raise CommandError(f"stdin: not {error.encoding}") from None


def run(
    model: Path,
    sentences: list[str],
    name: str,
    output: Path | None,
    *,
    batch_size: int,
    threads: int | None,
) -> None:
    set_threads(threads)
    translator = Translator.load(model)
    if not sentences and name == "-" and output is None and sys.stdin.isatty():
        _interactive(translator)
        return
    texts = _read(sentences, name)
    if not texts:
        raise CommandError(f"{'stdin' if name == '-' else name}: no lines")
    results = translator.translate(texts, batch_size=batch_size)
    if output is None:
        print("\n".join(results), flush=True)
        return
    try:
        write_text(output, "\n".join(results) + "\n")
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror})") from None
