# SPDX-License-Identifier: MIT
"""Where translations go: a stream, or a file that grows by windows and can be gone on with.

Beside OUTPUT stand, until it is whole, OUTPUT.partial with the translations so far and
OUTPUT.partial.json, the record of how far they are good. The record is replaced only after what it
speaks of is on the disk, so whatever stands behind its offset is of a window that did not end.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from seq2seq_ext.cli.console import CommandError, ReaderGone
from seq2seq_ext.cli.options import in_options

FORMAT = 1


class Sink(Protocol):
    """Takes windows of translations, whole lines, in order."""

    @property
    def kept(self) -> int:
        """Lines of the input that need not be translated again after an interruption."""

    def write(self, text: str, lines: int, source: str) -> None:
        """lines: of the input, read so far; source: their digest."""

    def finish(self) -> None:
        """The input has ended."""


class Stream:
    """stdout, or a device or pipe given as --output: what is written is gone."""

    kept = 0

    def __init__(self, output: Path | None) -> None:
        stdout = output is None or str(output) == "-"
        self.name = "stdout" if stdout else str(output)
        try:
            self.file = None if stdout else open(str(output), "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"{output}: cannot be written ({error.strerror})") from None

    def write(self, text: str, lines: int = 0, source: str = "") -> None:
        try:
            print(text, end="", flush=True, file=self.file)
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise CommandError(f"{self.name}: cannot be written ({error.strerror})") from None

    def finish(self) -> None:
        if self.file is not None:
            self.file.close()


@dataclasses.dataclass(frozen=True)
class Record:
    """What OUTPUT.partial.json holds."""

    model: str  # digest
    options: dict[str, Any]  # all that changes the translations, a seed included
    lines: int = 0  # of the input that are translated
    source: str = ""  # digest of these lines
    offset: int = 0  # bytes of OUTPUT.partial that hold their translations
    complete: bool = False  # the input ended here

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """None: there is no record. Raises CommandError: it is broken, or not ours."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CommandError(f"{path}: not readable ({error})") from None
        types = {field.name: type(getattr(_EMPTY, field.name)) for field in _FIELDS}
        good = isinstance(fields, dict) and fields.pop("format", None) == FORMAT
        if not good or {name: type(value) for name, value in fields.items()} != types:
            raise CommandError(f"{path}: not a record of this program")
        return cls(**fields)

    def write(self, path: Path) -> None:
        # One name, no process number in it: what a killed run leaves, the next one overwrites.
        temporary = path.with_name(f".{path.name}.tmp")
        text = json.dumps({"format": FORMAT, **vars(self)}, indent=2, ensure_ascii=False)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


_EMPTY = Record("", {})
_FIELDS = dataclasses.fields(Record)


def is_stream(output: Path | None) -> bool:
    """Whether this is no file, present or to be made, that another can be put in the place of."""
    if output is None or str(output) == "-":
        return True
    try:
        return not stat.S_ISREG(output.stat().st_mode)
    except OSError:
        return False


class Resumable:
    """OUTPUT, by way of OUTPUT.partial. As a context: keeps what there is if the block fails.

    Attributes:
        record: of the run so far; the one found, or an empty one.
        finished: another run had translated everything already.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self.record_path = output.with_name(output.name + ".partial.json")
        self.record = _EMPTY
        self.finished = False
        self._file: BinaryIO | None = None
        self._begun = False

    @property
    def kept(self) -> int:
        # Of the disk: Ctrl-C may come after a record is in place and before we have taken note.
        found = Record.read(self.record_path)
        return 0 if found is None else found.lines

    @property
    def whole(self) -> bool:
        """Whether the output is in its place and nothing is left beside it."""
        return self.record.complete and not self.record_path.exists()

    def open(self, model: str, options: dict[str, Any], *, resume: bool) -> dict[str, Any]:
        """Finds what an earlier run left. Returns the options with that run's seed, if it had one.

        Raises:
            CommandError: there is something to go on with and resume is not set, or it is of
                another model or of other options, or cannot be read.
        """
        found = self._find(resume)
        if found is None:
            return options
        if "seed" not in options and "seed" in found.options:
            options = {**options, "seed": found.options["seed"]}
        again = f"use the same, or delete {self.partial} to start anew"
        if found.model != model:
            raise CommandError(f"{self.partial}: was begun with another model; {again}")
        changes = _changes(found.options, options)
        if changes:
            raise CommandError(f"{self.partial}: was begun with other options ({changes}); {again}")
        self.record = found
        return options

    def _find(self, resume: bool) -> Record | None:
        """The record of lines that can be kept; None: this run starts at the first line."""
        try:
            self._file = self.partial.open("r+b")
        except FileNotFoundError:
            return self._without_partial() if resume else None
        except OSError as error:
            raise CommandError(f"{self.partial}: cannot be read ({error.strerror})") from None
        self._lock(self._file)
        size = os.fstat(self._file.fileno()).st_size
        found = Record.read(self.record_path)
        if found is None and size > 0:
            raise CommandError(
                f"{self.partial}: exists without {self.record_path.name}, so nobody knows how far "
                "it is good; delete it to start anew"
            )
        if found is None or found.lines == 0:
            return None
        if not resume:
            raise CommandError(
                f"{self.partial} holds the first {found.lines:,} lines of an interrupted run: "
                "go on with --resume, or delete it to start anew"
            )
        if size < found.offset:
            raise CommandError(
                f"{self.partial}: is shorter than its record says; delete it to start anew"
            )
        return found

    def _without_partial(self) -> Record | None:
        found = Record.read(self.record_path)
        if found is not None and found.complete and _size(self.output) == found.offset:
            self.finished = True  # killed between the last two steps of `finish`
            return found
        if found is not None and found.lines:
            raise CommandError(
                f"{self.partial}: is missing, but {self.record_path} knows of {found.lines:,} "
                "lines in it; delete the record to start anew"
            )
        if self.output.exists():
            raise CommandError(
                f"{self.output}: exists, and nothing of an interrupted run beside it; "
                "without --resume it is translated anew"
            )
        return None

    def _lock(self, file: BinaryIO) -> None:
        """One process at a time. Raises CommandError."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy() from None
        except OSError:
            return  # a file system without locks
        if _inode(self.partial) != os.fstat(file.fileno()).st_ino:  # finished meanwhile
            raise self._busy()

    def _busy(self) -> CommandError:
        return CommandError(f"{self.partial}: another process is writing it")

    def begin(self, model: str, options: dict[str, Any]) -> None:
        """Makes the files, or cuts off what was written after the record."""
        try:
            if self._file is None:
                self._file = self.partial.open("xb")
                self._lock(self._file)
            self._begun = True
            if self.record.lines == 0:
                self.record = Record(model, options)
                self.record.write(self.record_path)
                self._sync_names()
            self._file.truncate(self.record.offset)
            self._file.seek(self.record.offset)
        except FileExistsError:
            raise self._busy() from None
        except OSError as error:
            raise self._failed(error) from None

    def write(self, text: str, lines: int, source: str) -> None:
        assert self._file is not None
        try:
            self._file.write(text.encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._note(lines=lines, source=source, offset=self._file.tell(), complete=False)
        except OSError as error:
            raise self._failed(error) from None

    def _note(self, **changes: Any) -> None:
        record = dataclasses.replace(self.record, **changes)
        record.write(self.record_path)
        self.record = record

    def finish(self) -> None:
        """The partial file becomes the output."""
        try:
            self._note(complete=True)
            os.replace(self.partial, self.output)
            self._sync_names()  # the new one has to be on the disk before the record goes
            self.clear()
        except OSError as error:
            raise self._failed(error) from None

    def _sync_names(self) -> None:
        folder = os.open(self.output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def clear(self) -> None:
        self.record_path.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> CommandError:
        return CommandError(f"{self.output}: cannot be written ({error.strerror})")

    def __enter__(self) -> Resumable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        if kind is not None and self._begun and self._worthless(self._file):
            self.partial.unlink(missing_ok=True)
            self.record_path.with_name(f".{self.record_path.name}.tmp").unlink(missing_ok=True)
            self.clear()
        try:
            self._file.close()
        except OSError:
            if kind is None:
                raise

    def _worthless(self, file: BinaryIO) -> bool:
        """Whether what lies there is ours and holds no line that a later run could keep."""
        if _inode(self.partial) != os.fstat(file.fileno()).st_ino:
            return False  # it is the output by now
        try:
            return self.record.lines == 0 and self.kept == 0
        except CommandError:
            return False


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Options that are not the same, by their names on the command line."""
    parts = []
    for name in sorted(set(before) | set(now)):
        old, new = (_shown(options.get(name)) for options in (before, now))
        if old != new:
            parts.append(in_options(f"{name}: {old} before, {new} now"))
    return "; ".join(parts)


def _shown(value: Any) -> str:
    return "not given" if value in (None, False) else "given" if value is True else str(value)
