# SPDX-License-Identifier: MIT
"""Parallel text: reading with line-numbered errors, filtering, holding sentences out."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

Pair = tuple[str, str]
_PathLike = str | os.PathLike[str]


class DataError(ValueError):
    """Input a user can put right; the message names file and line."""


def read_lines(path: _PathLike) -> list[str]:
    """Lines of a UTF-8 text file, plain or gzip (by its content, not its name), without "\\n".

    Raises:
        DataError: the file is missing, unreadable, broken gzip, or not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: broken gzip file ({error})") from None
    return list(decode_lines(raw, str(path)))


def decode_lines(raw: bytes, name: str) -> Iterator[str]:
    """Lines of UTF-8 bytes; only "\\n" and "\\r\\n" end a line.

    Raises:
        DataError: a line is not UTF-8.
    """
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    lines = raw.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            yield line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8 (byte {error.start + 1})") from None


def _checked(text: str, name: str, number: int, what: str) -> str:
    text = text.strip()
    if not text:
        raise DataError(f"{name}:{number}: empty {what}")
    return text


def check_lines(lines: Iterable[str], name: str, what: str = "line") -> list[str]:
    """The lines stripped. Raises DataError where one is empty."""
    return [_checked(line, name, number, what) for number, line in enumerate(lines, 1)]


def read_pairs(source: _PathLike, target: _PathLike | None = None) -> list[Pair]:
    """(source, target) pairs of one TSV file, or of two line-parallel files.

    A TSV line is source TAB target; further columns (attributions) are left out.

    Raises:
        DataError: see `read_lines`; a line is empty or lacks its tab; line counts differ; or the
            file holds nothing.
    """
    if target is None:
        pairs = _read_tsv(source)
    else:
        sources, targets = read_lines(source), read_lines(target)
        if len(sources) != len(targets):
            raise DataError(
                f"{source} has {len(sources)} lines but {target} has {len(targets)}: "
                "parallel files must have the same number of lines"
            )
        pairs = list(
            zip(check_lines(sources, str(source)), check_lines(targets, str(target)), strict=True)
        )
    if not pairs:
        raise DataError(f"{source}: no lines")
    return pairs


def _read_tsv(path: _PathLike) -> list[Pair]:
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            raise DataError(f"{path}:{number}: empty line")
        columns = line.split("\t")
        if len(columns) < 2:
            raise DataError(f"{path}:{number}: expected source TAB target, found no tab")
        pairs.append(
            (
                _checked(columns[0], str(path), number, "source"),
                _checked(columns[1], str(path), number, "target"),
            )
        )
    return pairs


def filter_by_words(pairs: Iterable[Pair], max_words: int) -> list[Pair]:
    """Pairs of at most `max_words` words, counted by spaces, on both sides."""
    return [
        (source, target)
        for source, target in pairs
        if len(source.split()) <= max_words and len(target.split()) <= max_words
    ]


def hold_out(pairs: Iterable[Pair], count: int, *, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(rest, held out): about `count` pairs are held out, whole sources at a time.

    Sources are drawn at random and taken with all their targets until `count` different sources
    are held out, so no source of the held-out part occurs in the rest.

    Raises:
        DataError: fewer than count + 1 different sources.
    """
    pairs = list(pairs)
    # Spaces and capitals apart, equal sources are the same sentence: keep them together.
    keys = [" ".join(source.lower().split()) for source, _ in pairs]
    sources = sorted(set(keys))
    if count >= len(sources):
        raise DataError(
            f"cannot hold out {count} sources: the data has only {len(sources)} different ones"
        )
    Random(seed).shuffle(sources)
    chosen = set(sources[:count])
    rest = [pair for pair, key in zip(pairs, keys, strict=True) if key not in chosen]
    return rest, [pair for pair, key in zip(pairs, keys, strict=True) if key in chosen]


def group_references(pairs: Iterable[Pair]) -> tuple[list[str], list[list[str]]]:
    """Different sources in order of appearance, and all targets of each."""
    grouped: dict[str, list[str]] = {}
    for source, target in pairs:
        references = grouped.setdefault(source, [])
        if target not in references:
            references.append(target)
    return list(grouped), list(grouped.values())
