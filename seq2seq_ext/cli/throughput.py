# SPDX-License-Identifier: MIT
"""How fast `translate` is and how far: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from seq2seq_ext.cli.console import log

SECONDS_BETWEEN_LINES = 30.0


class Throughput:
    """Sentences and target tokens of this run; lines that an earlier run had done do not count."""

    def __init__(self, *, on_stdout: bool) -> None:
        # A bar in the terminal that shows the translations would be written over by them.
        self.quiet = not log.is_terminal or (on_stdout and sys.stdout.isatty())
        self.sentences = self.tokens = 0
        self.started = self.reported = time.perf_counter()
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    @contextmanager
    def drawing(self, size: int | None) -> Iterator[None]:
        """size: bytes of the input, if known."""
        columns = (
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=log, transient=True, redirect_stdout=False, disable=self.quiet
        ) as bar:
            self.bar, self.task = bar, bar.add_task("", total=size, state="")
            yield

    def on_batch(self, sentences: int, tokens: int) -> None:
        self.sentences += sentences
        self.tokens += tokens
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, state=self._state())

    def on_window(self, lines: int, position: int | None) -> None:
        """lines: of the input that are written; position: bytes of it that are read."""
        now = time.perf_counter()
        if self.quiet and now - self.reported >= SECONDS_BETWEEN_LINES:
            self.reported = now
            log.print(f"{lines:,} lines written  {self._state()}")
        if self.bar is not None and self.task is not None and position is not None:
            self.bar.update(self.task, completed=position)

    def _state(self) -> str:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return (
            f"{self.sentences:,} sentences  {self.sentences / seconds:,.0f} sentences/s  "
            f"{self.tokens / seconds:,.0f} tokens/s"
        )

    def print_total(self) -> None:
        log.print(f"{self._state()}  {time.perf_counter() - self.started:.1f} s")
