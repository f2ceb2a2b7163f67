# SPDX-License-Identifier: MIT
"""A trained model directory and a way to run commands in this process."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from seq2seq_ext.cli import main
from seq2seq_ext.data import phrasebook
from seq2seq_ext.training.translator import Hypothesis, Translator

SMALL = ["--hidden", "16", "--embedding", "8", "--batch-size", "32", "--lr", "0.01"]
TRANSLATE = [sys.executable, "-m", "seq2seq_ext", "translate"]


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
    translator.model.prepare_for_decoding(torch.float32)  # as the command does
    for batch in translator.decode(texts, skip_empty=True, batch_size=100, **options):
        for index, rows in batch.items():
            found[index] = rows
    return found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every write past `size` fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
