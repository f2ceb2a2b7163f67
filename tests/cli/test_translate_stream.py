# SPDX-License-Identifier: MIT
"""`translate` on files of any size: order, memory, and going on after an interruption."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from seq2seq_ext.cli import main, partial
from seq2seq_ext.data import phrasebook
from seq2seq_ext.training.translator import Hypothesis, Translator

from .conftest import Run

COMMAND = [sys.executable, "-m", "seq2seq_ext", "translate"]
KEEPS = "lines are translated and kept: the same command with --resume goes on"


@pytest.fixture(scope="session")
def lively(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with random weights: it says something different to different sentences."""
    copy = Path(shutil.copytree(model, tmp_path_factory.mktemp("lively") / "model"))
    translator = Translator.load(copy)
    random_numbers = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in translator.model.parameters():
            parameter.normal_(generator=random_numbers)
    translator.model.generation_config = translator.model.generation_config.replace(
        min_new_tokens=2, max_new_tokens=12
    )
    translator.save(copy)
    return copy


def sentences(count: int) -> list[str]:
    """Of mixed lengths; some lines are empty or of spaces."""
    some = [source for source, _ in phrasebook.pairs(300)]
    lines = [" ".join(some[(i * 7 + j) % 300] for j in range(1 + i % 3)) for i in range(count)]
    for at, line in ((4, ""), (count // 2, " \t "), (count - 2, "\u00a0")):
        lines[at] = line
    return lines


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{line}\n" for line in sentences(60)), encoding="utf-8")
    return path


def in_memory(model: Path, texts: list[str], **options: object) -> list[list[Hypothesis]]:
    """What one call makes of all lines; nothing of those without tokens."""
    found: list[list[Hypothesis]] = [[] for _ in texts]
    translator = Translator.load(model)
    for batch in translator.decode(texts, skip_empty=True, batch_size=100, **options):
        for index, rows in batch.items():
            found[index] = rows
    return found


def beside(output: Path) -> tuple[Path, Path]:
    return output.with_name(output.name + ".partial"), output.with_name(
        output.name + ".partial.json"
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Stopped(BaseException):
    """What stands in for the process being killed."""


def stop_after(windows: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The run ends with `error` when it has written so many windows."""
    write, left = partial.Resumable.write, [windows]

    def stopping(self: partial.Resumable, *arguments: object) -> None:
        if left[0] == 0:
            raise error
        left[0] -= 1
        write(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(partial.Resumable, "write", stopping)


@pytest.fixture
def interrupted(
    run: Run, lively: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An output of which the first 3 windows of 10 lines stand in the partial file."""
    output = tmp_path / "out.txt"
    with monkeypatch.context() as patch:
        stop_after(3, patch, KeyboardInterrupt())
        result = run("translate", lively, "-i", source, "-o", output, "--window", 10)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"interrupted; 30 {KEEPS}"
    return output


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
    command = [*COMMAND, str(lively), "--window", "2"]
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
    command = [*COMMAND, str(lively), "-i", str(source), "--window", "1"]
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


# Going on


def test_interrupted_and_resumed(
    run: Run, lively: Path, source: Path, interrupted: Path, tmp_path: Path
) -> None:
    expected = run("translate", lively, "-i", source).out
    part, record = beside(interrupted)
    assert part.read_text("utf-8") == "".join(f"{t}\n" for t in expected.split("\n")[:30])
    line = run("translate", lively, "-i", source, "-o", interrupted).error_line()
    assert f"{part} holds the first 30 lines of an interrupted run: go on with --resume" in line
    # A window that did not end, and a record that was not put in place.
    with part.open("ab") as file:
        file.write("half a windo\nŵ".encode()[:-1])
    record.with_name(f".{record.name}.tmp").write_text("{")
    # Windows and batches may be others: they change nothing.
    options = ["--resume", "--window", 13, "--batch-size", 5]
    result = run("translate", lively, "-i", source, "-o", interrupted, *options)
    assert result.code == 0
    assert "resuming after line 30" in result.err
    assert interrupted.read_text("utf-8") == expected
    assert names(tmp_path) == {"in.txt", "out.txt"}


def test_resume_without_anything_to_go_on_with(
    run: Run, lively: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.txt"
    arguments = ["translate", lively, "-i", source, "-o", output]
    assert run(*arguments, "--resume").code == 0  # a loop around the command needs no first case
    text = output.read_text("utf-8")
    assert "without --resume it is translated anew" in run(*arguments, "--resume").error_line()
    assert run(*arguments).code == 0
    assert output.read_text("utf-8") == text


def test_stdin_can_be_gone_on_with(
    run: Run, lively: Path, source: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever can write the same lines again."""
    stdin = io.TextIOWrapper(io.BytesIO(source.read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert run("translate", lively, "-o", interrupted, "--resume").code == 0
    assert interrupted.read_text("utf-8") == run("translate", lively, "-i", source).out


@pytest.mark.parametrize("seed", [[], ["--seed", 5]])
def test_samples_do_not_change_by_resuming(
    seed: list[object],
    run: Run,
    lively: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.txt"
    sample = ["--sample", "--temperature", 2, "--window", 10]
    arguments = ["translate", lively, "-i", source, "-o", output, *sample]
    with monkeypatch.context() as patch:
        stop_after(2, patch, KeyboardInterrupt())
        assert run(*arguments, *seed).code == 130
    drawn = json.loads(beside(output)[1].read_text())["options"]["seed"]
    if seed:
        assert drawn == 5
        assert "--seed: 5 before, 6 now" in run(*arguments, "--seed", 6, "--resume").error_line()
    assert run(*arguments, "--resume").code == 0  # the seed of before
    expected = run("translate", lively, "-i", source, *sample, "--seed", drawn).out
    assert output.read_text("utf-8") == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", 4], "(--beam: not given before, 4 now)"),
        (["--scores"], "(--scores: not given before, given now)"),
        (["--sample"], "--sample: not given before, given now"),
        (["--length-penalty", 0.5], "--length-penalty: not given before, 0.5 now"),
    ],
)
def test_other_options(
    options: list[object], message: str, run: Run, lively: Path, source: Path, interrupted: Path
) -> None:
    before = [path.read_bytes() for path in beside(interrupted)]
    line = run("translate", lively, "-i", source, "-o", interrupted, "--resume", *options)
    assert message in line.error_line()
    assert [path.read_bytes() for path in beside(interrupted)] == before


def test_other_model(run: Run, model: Path, source: Path, interrupted: Path) -> None:
    result = run("translate", model, "-i", source, "-o", interrupted, "--resume")
    assert "was begun with another model" in result.error_line()


@pytest.mark.parametrize("change", ["first", "shorter"])
def test_other_input(change: str, run: Run, lively: Path, source: Path, interrupted: Path) -> None:
    before = [path.read_bytes() for path in beside(interrupted)]
    lines = source.read_text("utf-8").splitlines(keepends=True)
    lines = ["You love me\n", *lines[1:]] if change == "first" else lines[:20]
    source.write_text("".join(lines), encoding="utf-8")
    result = run("translate", lively, "-i", source, "-o", interrupted, "--resume")
    assert "its first 30 lines are not those" in result.error_line()
    assert [path.read_bytes() for path in beside(interrupted)] == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda part, record: record.unlink(), "exists without out.txt.partial.json"),
        (lambda part, record: record.write_text("{"), "not readable"),
        (lambda part, record: record.write_text('{"format": 1}'), "not a record of this program"),
        (lambda part, record: part.write_bytes(b"x"), "is shorter than its record says"),
        (lambda part, record: part.unlink(), "is missing, but"),
    ],
)
def test_spoiled_files(
    spoil: Callable[[Path, Path], object],
    message: str,
    run: Run,
    lively: Path,
    source: Path,
    interrupted: Path,
) -> None:
    spoil(*beside(interrupted))
    result = run("translate", lively, "-i", source, "-o", interrupted, "--resume")
    assert message in result.error_line()


def test_one_process_at_a_time(run: Run, lively: Path, source: Path, interrupted: Path) -> None:
    with partial.Resumable(interrupted) as other:
        record = json.loads(beside(interrupted)[1].read_text())
        other.open(record["model"], record["options"], resume=True)
        result = run("translate", lively, "-i", source, "-o", interrupted, "--resume")
        assert "another process is writing it" in result.error_line()
    assert run("translate", lively, "-i", source, "-o", interrupted, "--resume").code == 0


def test_a_bad_line_costs_its_window_only(
    run: Run, lively: Path, source: Path, tmp_path: Path
) -> None:
    good, output = source.read_bytes(), tmp_path / "out.txt"
    expected = run("translate", lively, "-i", source).out
    lines = good.split(b"\n")
    source.write_bytes(b"\n".join([*lines[:34], b"\xff", *lines[35:]]))
    arguments = ["translate", lively, "-i", source, "-o", output, "--window", 10]
    result = run(*arguments)
    assert result.code == 2
    assert f"in.txt:35: not UTF-8 (byte 1); 30 {KEEPS}" in result.err
    assert result.err.count("\n") == 1
    source.write_bytes(good)  # put right
    assert run(*arguments, "--resume").code == 0
    assert output.read_text("utf-8") == expected


def test_what_fails_at_once_leaves_nothing(run: Run, lively: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    output.write_text("of before\n")
    for content, options in ((b"\xff\n", []), (b"", []), (b"a\n", ["--top-k", 3])):
        source.write_bytes(content)
        run("translate", lively, "-i", source, "-o", output, *options).error_line()
        assert names(tmp_path) == {"in.txt", "out.txt"}
        assert output.read_text() == "of before\n"
    result = run("translate", lively, "a", "-o", tmp_path / "new.txt", "--resume")
    assert "not with sentences as arguments" in result.error_line()


def test_every_moment_is_a_good_one_to_be_killed(
    run: Run, lively: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder as it is before and after each call that changes a name or waits for the disk."""
    work, output = tmp_path / "work", tmp_path / "work" / "out.txt"
    work.mkdir()
    moments: list[dict[str, bytes]] = []

    def watched(call: Callable[..., object]) -> Callable[..., object]:
        def watching(*arguments: object, **options: object) -> object:
            moments.append({path.name: path.read_bytes() for path in work.iterdir()})
            result = call(*arguments, **options)
            moments.append({path.name: path.read_bytes() for path in work.iterdir()})
            return result

        return watching

    options = ["-i", source, "-o", output, "--window", 15]
    with monkeypatch.context() as patch:
        for module, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
            patch.setattr(module, name, watched(getattr(module, name)))
        assert run("translate", lively, *options).code == 0
    expected = output.read_bytes()
    different = {json.dumps({n: b.hex() for n, b in m.items()}, sort_keys=True) for m in moments}
    assert len(different) > 15
    resumed = set()
    for moment in sorted(different):
        shutil.rmtree(work)
        work.mkdir()
        for name, content in json.loads(moment).items():
            (work / name).write_bytes(bytes.fromhex(content))
        whole = set(json.loads(moment)) == {"out.txt"}
        result = run("translate", lively, *options, *([] if whole else ["--resume"]))
        assert result.code == 0, (moment, result.err)
        assert output.read_bytes() == expected
        assert names(work) - {".out.txt.partial.json.tmp"} == {"out.txt"}
        resumed |= {line for line in result.err.splitlines() if "line" in line or "comp" in line}
    for lines in (15, 30, 45, 60):
        assert f"resuming after line {lines}" in resumed
    assert f"{output}: complete already" in resumed


@pytest.fixture
def kill() -> Iterator[Callable[[list[str], Path, int, float], str]]:
    """Starts a command, waits until its record moves, and sends a signal some time later."""
    started: list[subprocess.Popen[str]] = []

    def start_and_kill(command: list[str], record: Path, number: int, delay: float) -> str:
        before = record.read_text() if record.exists() else ""
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while process.poll() is None:
            try:
                if record.read_text() not in (before, "") and '"lines": 0' not in (
                    record.read_text()
                ):
                    break
            except FileNotFoundError:
                pass
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL, 130), errors
        return errors

    yield start_and_kill
    for process in started:
        process.kill()


def test_killed_several_times(
    lively: Path, tmp_path: Path, kill: Callable[[list[str], Path, int, float], str]
) -> None:
    """Real signals at random moments; then the file is the one of a run nobody disturbed."""
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    texts = sentences(1200)
    source.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    command = [*COMMAND, str(lively), "-i", str(source), "-o", str(output), "--window", "10"]
    command += ["--beam", "2", "--threads", "1", "--resume"]
    part, record = beside(output)
    moment = random.Random(int(time.time()))
    lines = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        errors = kill(command, record, number, moment.random() / 4)
        assert not output.exists(), "too fast to be killed"
        lines.append(json.loads(record.read_text())["lines"])
        if number == signal.SIGINT:
            assert errors.splitlines()[-1] == f"interrupted; {lines[-1]:,} {KEEPS}"
            assert "Traceback" not in errors
    assert lines == sorted(set(lines))
    assert part.exists()
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert f"resuming after line {lines[-1]:,}" in last.stderr
    expected = [rows[0].text if rows else "" for rows in in_memory(lively, texts, num_beams=2)]
    assert output.read_text("utf-8") == "".join(f"{line}\n" for line in expected)
    assert names(tmp_path) == {"in.txt", "out.txt"}


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
