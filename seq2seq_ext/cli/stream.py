# SPDX-License-Identifier: MIT
"""`translate` for texts of any size: window by window, in the order of the lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seq2seq_ext.cli.console import CommandError, Interrupted, log
from seq2seq_ext.cli.hypotheses import Layout, decode
from seq2seq_ext.cli.lines import Lines, open_lines
from seq2seq_ext.cli.options import known_failure
from seq2seq_ext.cli.partial import Resumable, Sink, Stream, is_stream
from seq2seq_ext.cli.throughput import Throughput
from seq2seq_ext.data.corpus import DataError
from seq2seq_ext.training.translator import Hypothesis, Translator, fingerprint

# Among the options of a record: they change the lines, and are none of `generate`.
SCORES, DTYPE = "--scores", "--dtype"


@dataclass(frozen=True)
class Job:
    """What is wanted of every window."""

    translator: Translator
    dtype: str  # that its weights are read in
    options: dict[str, Any]  # of `generate`
    layout: Layout
    window: int  # lines that are sorted by length together
    batch_size: int


def translate_lines(job: Job, model: Path, name: str, output: Path | None, *, resume: bool) -> None:
    """Translates the lines of a file, or of stdin, into a file or onto stdout.

    Raises:
        CommandError, DataError: input, output or options are wrong; the message says what is kept.
        Interrupted: Ctrl-C; the message says what is kept.
    """
    if resume and is_stream(output):
        raise CommandError("--resume needs a file as --output")
    with open_lines(name) as source:
        if output is None or is_stream(output):
            stream = Stream(output)
            with _interruptible(stream):
                _translate(_seeded(job, job.options), source, stream)
            return
        # A link stays a link, to the new file.
        sink = Resumable(output.resolve() if output.is_symlink() else output)
        with _interruptible(sink), sink:
            digest = fingerprint(model)
            given = {**job.options, SCORES: job.layout.scores, DTYPE: job.dtype}
            found = sink.open(digest, given, resume=resume)
            if sink.finished:
                log.print(f"{output}: complete already")
                sink.clear()
                return
            found = job.translator.with_seed(found)
            _skip(source, sink)
            sink.begin(digest, found)
            _translate(_seeded(job, found), source, sink)


@contextmanager
def _interruptible(sink: Sink) -> Iterator[None]:
    """Raises Interrupted for Ctrl-C, wherever it comes."""
    try:
        yield
    except KeyboardInterrupt:
        if isinstance(sink, Resumable) and sink.whole:
            raise Interrupted(f"interrupted; {sink.output} is complete") from None
        raise Interrupted("interrupted" + _kept(sink)) from None


def _seeded(job: Job, options: dict[str, Any]) -> Job:
    """One seed for all windows."""
    options = job.translator.with_seed(options)
    own = {name: value for name, value in options.items() if name not in (SCORES, DTYPE)}
    return replace(job, options=own)


def _skip(source: Lines, sink: Resumable) -> None:
    """Reads the lines that are translated already. Raises CommandError: they are others."""
    done = sink.record
    if done.lines == 0:
        return
    source.skip(done.lines)
    if source.count < done.lines or source.digest() != done.source:
        raise CommandError(
            f"{source.name}: its first {done.lines:,} lines are not those that {sink.partial} "
            "was translated from; use the same input, or delete that file to start anew"
        )
    log.print(f"resuming after line {done.lines:,}")


def _translate(job: Job, source: Lines, sink: Sink) -> None:
    speed = Throughput(on_stdout=isinstance(sink, Stream))
    empty = 0
    try:
        with speed.drawing(source.size):
            while texts := source.window(job.window):
                found = _decode(job, texts, source.count - len(texts), speed)
                empty += sum(not rows for rows in found)
                first = source.count - len(texts) + 1
                lines = [
                    f"{line}\n"
                    for number, rows in enumerate(found, first)
                    for line in job.layout.lines(number, rows)
                ]
                sink.write("".join(lines), source.count, source.digest())
                speed.on_window(source.count, source.position())
        if source.count == 0:
            raise CommandError(f"{source.name}: no lines")
        sink.finish()
    except (CommandError, DataError) as error:
        raise CommandError(f"{error}{_kept(sink)}") from None
    except (MemoryError, RuntimeError) as error:
        known = known_failure(error)
        if known is None:
            raise
        raise CommandError(f"{known}{_kept(sink)}") from None
    if empty:
        log.print(f"{empty:,} {'line holds' if empty == 1 else 'lines hold'} no tokens: left empty")
    speed.print_total()


def _kept(sink: Sink) -> str:
    try:
        kept = sink.kept
    except CommandError as error:  # the record was spoiled meanwhile
        return f"; {error}"
    if kept == 0:
        return ""
    return f"; {kept:,} lines are translated and kept: the same command with --resume goes on"


def _decode(job: Job, texts: list[str], first: int, speed: Throughput) -> list[list[Hypothesis]]:
    """Of each text; none where it has no tokens. first: the row of the first text."""
    found: list[list[Hypothesis]] = [[] for _ in texts]
    batches = decode(
        job.translator,
        [text.strip() for text in texts],
        batch_size=job.batch_size,
        first_row=first,
        skip_empty=True,
        **job.options,
    )
    for batch in batches:
        for index, rows in batch.items():
            found[index] = rows
        speed.on_batch(len(batch), sum(len(row.ids) for rows in batch.values() for row in rows))
    return found
