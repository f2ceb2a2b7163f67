# SPDX-License-Identifier: MIT
"""A trained model directory and a way to run commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from seq2seq_ext.cli import main
from seq2seq_ext.data import phrasebook

SMALL = ["--hidden", "16", "--embedding", "8", "--batch-size", "32", "--lr", "0.01"]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def error_line(self) -> str:
        """The one line a failed command may print. The warning of a missing library is not ours."""
        assert self.code == 2, (self.out, self.err)
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("seq2seq-ext: error: ")
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pairs of the phrasebook as TSV, and as parallel files beside it."""
    folder = tmp_path_factory.mktemp("data")
    pairs = phrasebook.pairs(300)
    (folder / "pairs.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in pairs), encoding="utf-8")
    (folder / "pairs.en").write_text("".join(f"{s}\n" for s, _ in pairs), encoding="utf-8")
    (folder / "pairs.fr").write_text("".join(f"{t}\n" for _, t in pairs), encoding="utf-8")
    some = "".join(f"{s}\t{t}\n" for s, t in pairs[:200])
    (folder / "some.tsv").write_text(some, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two epochs: it says nothing sensible, but it is complete."""
    directory = tmp_path_factory.mktemp("model")
    arguments = ["train", data / "pairs.tsv", "-o", directory, "--epochs", 2, *SMALL]
    assert main([str(argument) for argument in arguments]) == 0
    return directory
