# SPDX-License-Identifier: MIT
"""`translate --resume`: no line lost or doubled, whenever the run before was stopped."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seq2seq_ext.cli import partial

from .conftest import TRANSLATE, Run, in_memory, names, sentences

KEEPS = "lines are translated and kept: the same command with --resume goes on"


def beside(output: Path) -> tuple[Path, Path]:
    return output.with_name(output.name + ".partial"), output.with_name(
        output.name + ".partial.json"
    )


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
        file.write((1000 * "half a windo\nŵ").encode()[:-1])  # longer than what is to follow
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
            time.sleep(0.005)
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
    texts = sentences(15_000)  # more than are translated between the kills, however fast
    source.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    command = [*TRANSLATE, str(lively), "-i", str(source), "-o", str(output), "--window", "5"]
    command += ["--beam", "2", "--threads", "1", "--resume"]
    part, record = beside(output)
    moment = random.Random(int(time.time()))
    lines = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        errors = kill(command, record, number, moment.random() / 10)
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
