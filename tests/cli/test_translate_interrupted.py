# SPDX-License-Identifier: MIT
"""Ctrl-C, a full disk, no memory: what `translate` says is kept is what lies there."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from seq2seq_ext.cli import partial, stream
from seq2seq_ext.cli.console import CommandError, Interrupted
from seq2seq_ext.cli.hypotheses import Layout
from seq2seq_ext.training.translator import Hypothesis, Translator

from .conftest import TRANSLATE, Run, file_size_limit, names

LINES, WINDOW = 12, 5
KEEPS = "lines are translated and kept: the same command with --resume goes on"
Translate = Callable[..., str]


@pytest.fixture
def translate(lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Translate:
    """Into work/out.txt, by windows; the translator makes up what it says.

    The command without its command line, which would be most of the time.
    """

    def decode(self: Translator, texts: list[str], **_: object) -> Iterator[dict[int, Any]]:
        yield {i: [Hypothesis(f"<{t}>", [1], 0.0, 0.0, None)] for i, t in enumerate(texts)}

    monkeypatch.setattr(Translator, "decode", decode)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them
    said: list[str] = []
    monkeypatch.setattr(stream.log, "print", said.append)
    (tmp_path / "work").mkdir()
    source, output = tmp_path / "in.txt", tmp_path / "work" / "out.txt"
    source.write_text("".join(f"line {i}\n" for i in range(LINES)))
    job = stream.Job(
        Translator.load(lively), "float32", {}, Layout(scores=False, count=1), WINDOW, 64
    )

    def translate(*, resume: bool = False) -> str:
        said.clear()
        stream.translate_lines(job, lively, str(source), output, resume=resume)
        return "\n".join(said)

    return translate


@pytest.fixture
def expected() -> str:
    return "".join(f"<line {i}>\n" for i in range(LINES))


def kept(work: Path) -> int:
    """Lines that are good, by what lies in the folder."""
    try:
        record = json.loads((work / "out.txt.partial.json").read_text())
    except FileNotFoundError:
        return 0
    assert record["offset"] == sum(len(f"<line {i}>\n") for i in range(record["lines"]))
    if record["lines"] and (not record["complete"] or (work / "out.txt.partial").exists()):
        assert (work / "out.txt.partial").stat().st_size >= record["offset"]
    return int(record["lines"])


def goes_on(translate: Translate, work: Path, expected: str, moment: object) -> None:
    """The run of which this is left loses and doubles no line."""
    before = kept(work)
    if names(work) == {"out.txt"}:
        assert (work / "out.txt").read_text() == expected, moment
        return
    log = translate(resume=True)
    said = re.search(r"resuming after line (\d+)|complete already", log)
    assert (said is None) == (before == 0), (moment, log)
    assert said is None or said[1] in (None, str(before)), (moment, log)
    assert (work / "out.txt").read_text() == expected, moment
    assert names(work) == {"out.txt"}, moment


class CtrlC:
    """KeyboardInterrupt at the n-th line or return of the code that keeps the lines, and once more
    `later` lines after that."""

    def __init__(self, work: Path, moment: int, later: int = 0) -> None:
        self.work, self.moments = work, {moment, moment + later}
        self.count = self.kept = 0  # kept: lines, by the folder as it was then
        self.where: list[str] = []
        self.running = False

    def __enter__(self) -> CtrlC:
        self.before, self.running = sys.gettrace(), True
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        sys.settrace(self.before)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        ours = frame.f_code.co_filename in (partial.__file__, stream.__file__)
        return self._line if ours else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event in ("line", "return"):
            self.count += 1
            if self.count in self.moments:
                self.kept = kept(self.work)
                self.where.append(f"{frame.f_code.co_name}:{frame.f_lineno} ({event})")
                raise KeyboardInterrupt  # which ends the tracing
        return self._line

    def again(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Traced although an interrupt came before."""

        def traced(*arguments: Any) -> Any:
            if self.running and self.where:
                sys.settrace(self._call)
            return function(*arguments)

        return traced


def interrupted(translate: Translate, work: Path, interrupt: CtrlC) -> str | None:
    """The message; None: the end came before the interrupt."""
    for path in work.iterdir():
        path.unlink()
    try:
        with interrupt:
            translate()
    except Interrupted as stop:
        return str(stop)
    except KeyboardInterrupt:
        return "interrupted"  # by `main`
    assert not interrupt.where, "swallowed"
    return None


def test_every_moment_is_a_good_one_for_ctrl_c(
    translate: Translate, expected: str, tmp_path: Path
) -> None:
    """What the message says is what the folder holds, and the next run goes on from there."""
    work, messages = tmp_path / "work", set()
    for moment in itertools.count(1):
        interrupt = CtrlC(work, moment)
        message = interrupted(translate, work, interrupt)
        if message is None:
            break
        lines, whole = kept(work), names(work) == {"out.txt"}
        end = f"; {work / 'out.txt'} is complete" if whole else f"; {lines} {KEEPS}" * (lines > 0)
        outside = interrupt.where[0].startswith(("translate_lines", "_interruptible"))
        assert message == "interrupted" + end or (outside and (whole or not lines)), interrupt.where
        assert lines >= interrupt.kept or whole, interrupt.where
        # Nothing is left but what is worth a question. (An empty file asks none.)
        assert lines or whole or not any(p.stat().st_size for p in work.iterdir()), interrupt.where
        messages.add(message)
        goes_on(translate, work, expected, interrupt.where)
    assert moment > 100
    assert len(messages) == 5  # nothing, each of the three windows, all


def test_ctrl_c_twice(
    translate: Translate, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one in what the first one starts."""
    work, pairs = tmp_path / "work", 0
    exits, tells = partial.Resumable.__exit__, stream._kept
    for moment in itertools.count(1, 41):
        for later in itertools.count(1):
            interrupt = CtrlC(work, moment, later)
            monkeypatch.setattr(partial.Resumable, "__exit__", interrupt.again(exits))
            monkeypatch.setattr(stream, "_kept", interrupt.again(tells))
            message = interrupted(translate, work, interrupt)
            if len(interrupt.where) < 2:
                break
            assert kept(work) >= interrupt.kept or names(work) == {"out.txt"}, interrupt.where
            goes_on(translate, work, expected, interrupt.where)
            pairs += 1
        if message is None:
            break
    assert pairs > 20


# A machine that refuses


def test_full_disk_at_every_call(
    translate: Translate, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, messages = tmp_path / "work", set()
    for refused in itertools.count():
        calls = itertools.count()

        def full(call: Callable[..., Any], calls: Iterator[int] = calls) -> Callable[..., Any]:
            def called(*arguments: Any) -> Any:
                if next(calls) == refused:  # noqa: B023
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return call(*arguments)

            return called

        for path in work.iterdir():
            path.unlink()
        with monkeypatch.context() as patch:
            for name in ("fsync", "replace"):
                patch.setattr(os, name, full(getattr(os, name)))
            try:
                translate()
            except CommandError as error:
                message = str(error)
            else:
                break
        lines = kept(work)
        said = f"{work / 'out.txt'}: cannot be written (No space left on device)"
        assert message == said + f"; {lines} {KEEPS}" * (lines > 0)
        messages.add(lines)
        assert lines or not names(work)  # what was begun in vain is not left
        goes_on(translate, work, expected, refused)
    assert messages == {0, 5, 10, 12}


def test_full_disk_in_the_middle(run: Run, lively: Path, source: Path, tmp_path: Path) -> None:
    """The system itself refuses to let the file grow."""
    output = tmp_path / "out.txt"
    arguments = ["translate", lively, "-i", source, "-o", output, "--window", 10]
    expected = run("translate", lively, "-i", source).out
    size = len("".join(expected.splitlines(keepends=True)[:37]).encode())
    with file_size_limit(size):
        line = run(*arguments).error_line()
    assert line.endswith(f"{output}: cannot be written (File too large); 30 {KEEPS}")
    assert names(tmp_path) == {"in.txt", "out.txt.partial", "out.txt.partial.json"}
    assert run(*arguments, "--resume").code == 0
    assert output.read_text("utf-8") == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("where", ["stdout", "--output"])
def test_full_device(where: str, lively: Path, source: Path) -> None:
    command = [*TRANSLATE, str(lively), "-i", str(source)]
    command += ["-o", "/dev/full"] if where == "--output" else []
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    name = "/dev/full" if where == "--output" else "stdout"
    said = f"seq2seq-ext: error: {name}: cannot be written (No space left on device)\n"
    assert result.stderr == said


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")])
@pytest.mark.parametrize("windows", [0, 2])
def test_out_of_memory(
    windows: int,
    error: Exception,
    translate: Translate,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode, left = Translator.decode, [windows]

    def failing(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            raise error
        left[0] -= 1
        return decode(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Translator, "decode", failing)
        with pytest.raises(CommandError) as failure:
            translate()
    said = "out of memory: try a smaller --batch-size"
    assert str(failure.value) == said + f"; 10 {KEEPS}" * (windows > 0)
    goes_on(translate, tmp_path / "work", expected, "out of memory")


def test_a_defect_is_told_as_it_is_and_keeps_the_lines(
    translate: Translate, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = partial.Resumable.write, [1]

    def failing(*arguments: Any) -> None:
        if left[0] == 0:
            raise RuntimeError("a defect of ours")
        left[0] -= 1
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(partial.Resumable, "write", failing)
        with pytest.raises(RuntimeError, match="a defect"):
            translate()
    assert kept(tmp_path / "work") == WINDOW
    goes_on(translate, tmp_path / "work", expected, "a defect")


def test_a_record_that_was_spoiled_meanwhile(
    translate: Translate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed, and the message says what is the matter."""
    work = tmp_path / "work"

    def spoiling(*_: Any) -> None:
        (work / "out.txt.partial.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(partial.Resumable, "write", spoiling)
    with pytest.raises(Interrupted, match=r"interrupted; .*out\.txt\.partial\.json: not readable"):
        translate()
    assert names(work) == {"out.txt.partial", "out.txt.partial.json"}
