# SPDX-License-Identifier: MIT
"""Lines of a file larger than memory, as they are wanted."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from seq2seq_ext.data.corpus import DataError

_BOM = b"\xef\xbb\xbf"


class Lines:
    """A UTF-8 text that is read once, from its first line to its last.

    Attributes:
        count: lines read so far.
        file: what the bytes come from, gzip or not; tells how far we are in a file of `size` bytes
            (None: nobody knows).
    """

    def __init__(self, text: BinaryIO, name: str, file: BinaryIO | None = None) -> None:
        self.text, self.name, self.file = text, name, file
        self.count = 0
        self.size: int | None = None
        if file is not None:
            status = os.fstat(file.fileno())
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._digest = hashlib.sha256()

    def digest(self) -> str:
        """Of all bytes read so far."""
        return self._digest.hexdigest()

    def position(self) -> int | None:
        """Bytes of `size` that are read; a reader's buffer included."""
        if self.size is None or self.file is None:
            return None
        return self.file.tell()

    def window(self, count: int) -> list[str]:
        """The next `count` lines without their ends, fewer at the end of the text.

        Raises:
            DataError: the file cannot be read, is broken gzip, or a line is not UTF-8.
        """
        texts: list[str] = []
        while len(texts) < count and (line := self._read()):
            texts.append(self._text(line))
        return texts

    def skip(self, count: int) -> None:
        """Reads lines and forgets them; stops at the end. Raises DataError: the file's own."""
        for _ in range(count):
            if not self._read():
                break

    def _read(self) -> bytes:
        try:
            line = self.text.readline()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.name}: broken gzip file ({error})") from None
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read ({error.strerror})") from None
        if line:
            self._digest.update(line)
            self.count += 1
        return line

    def _text(self, line: bytes) -> str:
        if self.count == 1:
            line = line.removeprefix(_BOM)
        try:
            return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"{self.name}:{self.count}"
            raise DataError(f"{place}: not UTF-8 (byte {error.start + 1})") from None


@contextmanager
def open_lines(name: str) -> Iterator[Lines]:
    """A file, plain or gzip by its content; "-" is stdin. Raises DataError: it cannot be read."""
    if name == "-":
        yield Lines(sys.stdin.buffer, "stdin")
        return
    try:
        file = open(name, "rb")  # noqa: SIM115  errors of the block are not errors of opening
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None
    with file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        yield Lines(gzip.GzipFile(fileobj=file) if packed else file, name, file)  # type: ignore[arg-type]
