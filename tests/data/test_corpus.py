# SPDX-License-Identifier: MIT
"""Reading parallel text, with errors that name the line; filters; held-out parts."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_ext.data.corpus import (
    DataError,
    filter_by_words,
    group_references,
    hold_out,
    read_lines,
    read_pairs,
)

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def test_plain_and_gzip_by_content(write: Write) -> None:
    text = b"Hi.\tSalut !\r\nI am.\tJe suis.\tCC-BY\n"
    expected = [("Hi.", "Salut !"), ("I am.", "Je suis.")]
    assert read_pairs(write("a.tsv", text)) == expected
    assert read_pairs(write("b.tsv.gz", gzip.compress(text))) == expected
    assert read_pairs(write("c.tsv", gzip.compress(text))) == expected
    assert read_pairs(write("d.tsv", b"\xef\xbb\xbf" + text)) == expected


def test_only_newlines_end_a_line(write: Write) -> None:
    # str.splitlines would cut at these, too, and misalign parallel files.
    assert read_lines(write("a", "a\u2028b\x0cc\x85d\n".encode())) == ["a\u2028b\x0cc\x85d"]


def test_parallel_files(write: Write) -> None:
    source, target = write("s", b"a\nb\n"), write("t", b"x\ny")
    assert read_pairs(source, target) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\n\nc\td\n", r"x\.tsv:2: empty line"),
        (b"a\tb\nc d\n", r"x\.tsv:2: expected source TAB target"),
        (b"a\t \n", r"x\.tsv:1: empty target"),
        (b"\ta\n", r"x\.tsv:1: empty source"),
        (b"a\tb\nc\t\xff\n", r"x\.tsv:2: not UTF-8 \(byte 3\)"),
        (b"", "no lines"),
        (gzip.compress(b"a\tb\n" * 50, mtime=0)[:-12], "broken gzip"),
        (b"\x1f\x8bnonsense", "broken gzip"),
    ],
)
def test_bad_tsv(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(write("x.tsv", content))


def test_bad_parallel_files(write: Write, tmp_path: Path) -> None:
    two, three = write("s", b"a\nb\n"), write("t", b"x\ny\nz\n")
    with pytest.raises(DataError, match=r"s has 2 lines but .*t has 3"):
        read_pairs(two, three)
    with pytest.raises(DataError, match=r"e:2: empty line"):
        read_pairs(two, write("e", b"x\n \n"))
    with pytest.raises(DataError, match=r"missing: no such file"):
        read_pairs(tmp_path / "missing")
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path)


def test_filter_counts_both_sides() -> None:
    pairs = [("a b", "x"), ("a b c", "x"), ("a", "x y z")]
    assert filter_by_words(pairs, 2) == [("a b", "x")]


def test_hold_out_keeps_sources_together() -> None:
    pairs = [(f"s{i % 50}", f"t{i}") for i in range(150)]
    pairs += [("S7", "t with a capital source")]
    rest, held_out = hold_out(pairs, 10, seed=3)
    assert sorted(rest + held_out) == sorted(pairs)
    assert len({s.lower() for s, _ in held_out}) == 10
    assert not {s.lower() for s, _ in rest} & {s.lower() for s, _ in held_out}
    assert hold_out(pairs, 10, seed=3) == (rest, held_out)
    assert hold_out(pairs, 10, seed=4) != (rest, held_out)
    assert hold_out(pairs, 0) == (pairs, [])
    with pytest.raises(DataError, match="only 50 different"):
        hold_out(pairs, 50)


def test_group_references() -> None:
    pairs = [("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")]
    assert group_references(pairs) == (["a", "b"], [["x", "z"], ["y"]])
