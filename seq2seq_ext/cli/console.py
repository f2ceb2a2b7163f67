# SPDX-License-Identifier: MIT
"""What all commands share: consoles, progress bars, Ctrl-C, inputs."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from seq2seq_ext.data.batching import Batch
from seq2seq_ext.training.metrics import Scores
from seq2seq_ext.training.trainer import Progress as TrainingProgress
from seq2seq_ext.training.trainer import Reporter

# Results go to stdout, everything about the work under way to stderr. Paths and words may hold
# brackets: no markup.
console = Console(highlight=False, markup=False)
log = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 160  # a pipe or file has no width of its own: do not fold tables at 80


class CommandError(Exception):
    """Ends a command with one line on stderr and exit code 2."""


class ReaderGone(Exception):  # noqa: N818  not an error
    """Whoever read the output (head, less) wants no more. Typer would make BrokenPipeError 1."""


class Interrupted(Exception):  # noqa: N818  not an error
    """Ctrl-C, with more to say than that: one line on stderr and exit code 130."""


def set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def command_prefix() -> str:
    """What starts this program from the shell that started it, whose PATH may lack it."""
    python = Path(sys.executable)
    # Under make, PATH is make's own.
    found = None if "MAKELEVEL" in os.environ else shutil.which("seq2seq-ext")
    if found is not None and Path(found).parent == python.parent:
        return "seq2seq-ext"
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return f"{shlex.quote(str(python))} -m seq2seq_ext"


def new_directory(path: Path, marker: str, overwrite: bool) -> None:
    """Makes sure that nothing is overwritten unasked. Raises CommandError."""
    if path.exists() and not path.is_dir():
        raise CommandError(f"{path}: exists and is not a directory")
    if (path / marker).exists() and not overwrite:
        raise CommandError(f"{path}: holds a model already; use --overwrite or --resume")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{path}: cannot be made ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise CommandError(f"{path}: not writable")


class Interrupt:
    """Ctrl-C once asks the work to stop at the next safe point, twice stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def watching(self) -> Iterator[Interrupt]:
        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            log.print("stopping after this batch; Ctrl-C again stops at once")

        try:
            before = signal.signal(signal.SIGINT, on_signal)
        except ValueError:  # not in the main thread: nobody sends us signals
            yield self
            return
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)


class TrainingBar(Reporter):
    """A progress bar per epoch with loss, target tokens a second and time left; a line per epoch.

    Where stderr is not a terminal only the lines appear.
    """

    def __init__(self, epochs: int, max_minutes: float | None, interrupt: Interrupt) -> None:
        self.epochs, self.max_minutes, self.interrupt = epochs, max_minutes, interrupt
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.batches = self.tokens = 0
        self.started = time.perf_counter()

    @contextmanager
    def drawing(self) -> Iterator[TrainingBar]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
            self.bar = bar
            yield self

    def on_start(self, batches: int, progress: TrainingProgress) -> None:
        self.batches = batches
        self._begin(progress)

    def _begin(self, progress: TrainingProgress) -> None:
        self.tokens, self.started = 0, time.perf_counter()
        if self.bar is not None:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(
                f"epoch {progress.epoch + 1}/{self.epochs}",
                total=self.batches,
                completed=progress.batch,
                state="",
            )

    def _speed(self) -> float:
        return self.tokens / max(time.perf_counter() - self.started, 1e-9)

    def on_batch(self, batch: Batch, loss: float, progress: TrainingProgress) -> None:
        self.tokens += batch.target_tokens
        if self.bar is not None and self.task is not None:
            mean = progress.loss_sum / max(progress.tokens, 1)
            state = f"loss {mean:.3f}  {self._speed():,.0f} tokens/s"
            self.bar.update(self.task, completed=progress.batch, state=state)

    def on_epoch(self, entry: dict[str, float], progress: TrainingProgress) -> None:
        parts = [f"epoch {progress.epoch}/{self.epochs}", f"train loss {entry['train_loss']:.4f}"]
        if "valid_loss" in entry:
            parts.append(f"valid loss {entry['valid_loss']:.4f}")
        parts += [f"{self._speed():,.0f} tokens/s", f"{progress.seconds:.0f} s"]
        left = progress.seconds / progress.epoch * (self.epochs - progress.epoch)
        if self.max_minutes is not None:
            left = min(left, 60 * self.max_minutes - progress.seconds)
        if left > 0:
            parts.append(f"{left:.0f} s left")
        log.print("  ".join(parts))
        self._begin(progress)

    def stop_requested(self) -> bool:
        return self.interrupt.requested


def print_scores(scores: Scores, title: str, out: Console = console) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    rows = [
        ("sentences", f"{scores.sentences}"),
        ("exact match", f"{100 * scores.exact_match:.2f} %"),
        ("token accuracy", f"{100 * scores.token_accuracy:.2f} %"),
        ("BLEU", f"{scores.bleu:.2f}"),
        ("chrF", f"{scores.chrf:.2f}"),
        ("WER (no reference matched)", f"{100 * scores.wer:.2f} %"),
        ("PER (token edits)", f"{100 * scores.per:.2f} %"),
        ("BLEU signature", scores.bleu_signature),
        ("chrF signature", scores.chrf_signature),
    ]
    for row in rows:
        table.add_row(*row)
    out.print(table)
