# SPDX-License-Identifier: MIT
"""`translate` on files and streams of any size: order, layout, memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from seq2seq_ext.cli import main
from seq2seq_ext.training.translator import Hypothesis, Translator

from .conftest import TRANSLATE, Run, in_memory, names, sentences

# Order, and the same as in memory


@pytest.mark.parametrize("window", [1, 7, 60, 4096])
def test_a_file_in_its_order(
    window: int, run: Run, lively: Path, source: Path, tmp_path: Path
) -> None:
    expected = [rows[0].text if rows else "" for rows in in_memory(lively, sentences(60))]
    assert len(set(expected)) > 20
    options = ["--window", window, "--batch-size", 8]
    on_stdout = run("translate", lively, "-i", source, *options)
    assert on_stdout.out == "".join(f"{line}\n" for line in expected)
    assert "3 lines hold no tokens: left empty" in on_stdout.err
    assert re.search(r"57 sentences  [\d,]+ sentences/s  [\d,]+ tokens/s", on_stdout.err)
    output = tmp_path / "out.txt"
    assert run("translate", lively, "-i", source, "-o", output, *options).out == ""
    assert output.read_text("utf-8") == on_stdout.out
    assert names(tmp_path) == {"in.txt", "out.txt"}


def test_gzip_byte_order_mark_and_line_ends(run: Run, lively: Path, tmp_path: Path) -> None:
    plain, other = tmp_path / "a", tmp_path / "b"
    plain.write_text("I love you\nShe loves him\n")
    other.write_bytes(gzip.compress(b"\xef\xbb\xbfI love you\r\nShe loves him"))
    expected = run("translate", lively, "-i", plain).out
    assert expected.count("\n") == 2
    assert run("translate", lively, "-i", other).out == expected


def test_n_best_and_scores(run: Run, lively: Path, source: Path) -> None:
    beams = ["--beam", 3, "--n-best", 2]
    found = in_memory(lively, sentences(60), num_beams=3, num_return_sequences=2)
    empty = [Hypothesis("", [], 0.0, 0.0, None)] * 2
    result = run("translate", lively, "-i", source, *beams, "--scores", "--window", 7)
    assert [line.split("\t") for line in result.out.splitlines()] == [
        [str(number), f"{h.score:.4f}", f"{h.normalized:.4f}", h.text]
        for number, rows in enumerate(found, 1)
        for h in rows or empty
    ]
    result = run("translate", lively, "-i", source, *beams, "--window", 7)
    assert [line.split("\t") for line in result.out.splitlines()] == [
        [str(number), h.text] for number, rows in enumerate(found, 1) for h in rows or empty
    ]
    one = run("translate", lively, "-i", source, "--scores").out.splitlines()
    assert one[4] == "0.0000\t0.0000\t"


def test_samples_are_those_of_the_line(run: Run, lively: Path, source: Path) -> None:
    options = ["--sample", "--temperature", 2, "--seed", 5, "--n-best", 2]
    found = in_memory(
        lively, sentences(60), do_sample=True, temperature=2.0, seed=5, num_return_sequences=2
    )
    expected = [row.text for rows in found if rows for row in rows]
    for window in (7, 100):
        out = run("translate", lively, "-i", source, *options, "--window", window).out
        texts = [line.split("\t")[1] for line in out.splitlines()]
        assert [text for text in texts if text] == [text for text in expected if text]


def test_attention_of_a_file(run: Run, lively: Path, tmp_path: Path) -> None:
    source, weights = tmp_path / "in.txt", tmp_path / "a.jsonl"
    source.write_text("I love you\nShe loves him\n")
    plain = run("translate", lively, "-i", source)
    drawn = run("translate", lively, "-i", source, "--attention", weights)
    assert drawn.out == plain.out
    assert len(weights.read_text("utf-8").splitlines()) == 2


# Streams


def test_stdin_gives_windows_as_they_come(lively: Path) -> None:
    """A writer that waits for the translation of a window before it writes the next one."""
    texts = ["I love you", "She loves him", "", "Do you love me?", "We love them"]
    expected = [rows[0].text if rows else "" for rows in in_memory(lively, texts)]
    command = [*TRANSLATE, str(lively), "--window", "2"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for at in (0, 2):
            process.stdin.write("".join(f"{text}\n" for text in texts[at : at + 2]))
            process.stdin.flush()
            for line in expected[at : at + 2]:
                assert process.stdout.readline() == f"{line}\n"
        rest, _ = process.communicate(texts[4], timeout=60)  # the last line has no end
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest == f"{expected[4]}\n"


def test_a_reader_that_goes_away(lively: Path, source: Path) -> None:
    command = [*TRANSLATE, str(lively), "-i", str(source), "--window", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 0
    assert errors == b""


def test_devices_are_written_to_and_not_replaced(run: Run, lively: Path, tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    link.symlink_to(target)
    source = tmp_path / "in.txt"
    source.write_text("I love you\n")
    expected = run("translate", lively, "-i", source).out
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run("translate", lively, "-i", source, "-o", pipe).code == 0
    assert os.read(reader, 1000).decode() == expected
    os.close(reader)
    assert run("translate", lively, "-i", source, "-o", link).code == 0
    assert link.is_symlink()
    assert target.read_text("utf-8") == expected
    assert run("translate", lively, "-i", source, "-o", "-").out == expected
    line = run("translate", lively, "-i", source, "-o", pipe, "--resume").error_line()
    assert "--resume needs a file" in line


# What is shown


def test_a_log_shows_progress(
    run: Run, lively: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "lines written" not in run("translate", lively, "-i", source, "--window", 20).err
    monkeypatch.setattr("seq2seq_ext.cli.throughput.SECONDS_BETWEEN_LINES", 0)
    lines = run("translate", lively, "-i", source, "--window", 20).err.splitlines()
    assert [line.split(" lines written")[0] for line in lines[:3]] == ["20", "40", "60"]
    assert re.search(r"  19 sentences  [\d,]+ sentences/s  [\d,]+ tokens/s$", lines[0])


def test_a_terminal_shows_a_bar(
    lively: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr alone: stdout holds the translations and nothing else."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("seq2seq_ext.cli.throughput.log", screen)
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert main(["translate", str(lively), "-i", str(source), "--window", "20"]) == 0
    assert stdout.getvalue().count("\n") == 60
    assert "\x1b" not in stdout.getvalue()
    assert "sentences/s" in screen.file.getvalue()  # type: ignore[attr-defined]
    assert "━" in screen.file.getvalue()  # type: ignore[attr-defined]


# Memory


def test_memory_does_not_grow_with_the_file(
    run: Run, lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long translations, made up: what is held of each line would be seen."""
    text = "x" * 1000

    def decode(self: Translator, texts: list[str], **_: object) -> Iterator[dict]:  # type: ignore[type-arg]
        yield {i: [Hypothesis(text + t, [1] * 9, 0.0, 0.0, None)] for i, t in enumerate(texts)}

    monkeypatch.setattr(Translator, "decode", decode)
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    peaks = []
    for count in (1000, 10_000):
        source.write_text("".join(f"line {i}\n" for i in range(count)))
        run("translate", lively, "-i", source, "-o", output, "--window", 100)  # caches are filled
        tracemalloc.start()
        result = run("translate", lively, "-i", source, "-o", output, "--window", 100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.code == 0
        assert output.stat().st_size > 1000 * count
    assert peaks[1] < peaks[0] + 200_000, peaks  # all lines: 9 MB more


# Prints the resident KiB after each window of a command. What was freed goes back to the system
# first, so that the rest is what is held.
RESIDENT = """
import ctypes, re, sys
from seq2seq_ext.cli import main
from seq2seq_ext.cli.throughput import Throughput

def on_window(self, lines, position):
    ctypes.CDLL(None).malloc_trim(0)
    status = open("/proc/self/status").read()
    print(re.search(r"VmRSS:\\s*(\\d+)", status)[1])

Throughput.on_window = on_window
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_of_the_engine_does_not_grow_with_the_file(lively: Path, tmp_path: Path) -> None:
    """All memory of the process, torch's and the engine's included, in some hundred calls."""
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("".join(f"{line}\n" for line in sentences(6000)), encoding="utf-8")
    arguments = ["translate", lively, "-i", source, "-o", output, "--window", 100]
    arguments += ["--batch-size", 16, "--threads", 1]
    command = [sys.executable, "-c", RESIDENT, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert output.read_bytes().count(b"\n") == 6000
    resident = [int(line) for line in result.stdout.split()]
    assert len(resident) == 60
    assert resident[-1] < resident[14] + 1000, resident  # a kilobyte held of each line: 4500 more
