# SPDX-License-Identifier: MIT
"""Broken models and a machine that refuses: one line and exit code 2, as for bad arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2seq_ext.cli import console
from seq2seq_ext.training.translator import Translator

from .conftest import SMALL, Run, file_size_limit


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(tokenizers=None), "tokenizers.source must be one of word"),
        (lambda c: c["tokenizers"].update(target="foo"), "tokenizers.target must be one of word"),
        (lambda c: c["tokenizers"].pop("target"), "tokenizers.target must be one of word"),
        (lambda c: c.update(model=None), "do not fit"),
        (lambda c: c["model"].update(generation=[]), "do not fit"),
        (lambda c: c["model"]["generation"].update(max_new_tokens="9"), "max_new_tokens"),
        (lambda c: c["model"]["generation"].update(num_beams=0), "num_beams"),
    ],
)
def test_bad_configuration(
    change: Callable[[dict[str, object]], object], message: str, run: Run, copy: Path
) -> None:
    config = json.loads((copy / "config.json").read_text())
    change(config)
    (copy / "config.json").write_text(json.dumps(config))
    line = run("translate", copy, "hello").error_line()
    assert message in line
    assert str(copy) in line


@pytest.mark.parametrize("command", ["translate", "trace"])
def test_weights_of_nan(command: str, run: Run, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    name = "decoder.output.weight"
    save_file({**weights, name: weights[name] * float("nan")}, copy / "model.safetensors")
    assert "weights hold NaN" in run(command, copy, "hello").error_line()


@pytest.mark.parametrize("part", ["model", "optimizer", "rng", "progress", "data", "extra"])
def test_checkpoint_without_a_part(part: str, run: Run, copy: Path) -> None:
    path = copy / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state[part]
    torch.save(state, path)
    line = run("train", "--resume", copy).error_line()
    assert f"not a checkpoint of this program, {part!r} is missing" in line


def test_what_train_did_not_start_cannot_be_resumed(run: Run, copy: Path) -> None:
    """`demo` stores no options of `train`."""
    path = copy / "checkpoint.pt"
    torch.save({**torch.load(path, weights_only=True), "extra": {}}, path)
    assert "cannot be resumed" in run("train", "--resume", copy).error_line()


@pytest.mark.parametrize("name", ["source_tokenizer.json", "checkpoint.pt"])
def test_full_disk(name: str, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    """The first file that is written, and the largest, after the first epoch."""
    size = 1000
    if name == "checkpoint.pt":
        size = 1000 + max(path.stat().st_size for path in model.iterdir() if path.name != name)
    assert size < (model / name).stat().st_size
    with file_size_limit(size):
        result = run("train", data / "pairs.tsv", "-o", tmp_path / "m", "--epochs", 1, *SMALL)
    assert result.code == 2
    assert result.err.splitlines()[-1].endswith(f"{name}: File too large")
    assert not list((tmp_path / "m").glob(".*"))  # no half-written file is left


def test_full_disk_keeps_the_weights_of_before(copy: Path) -> None:
    translator = Translator.load(copy)
    before = (copy / "model.safetensors").read_bytes()
    with file_size_limit(1000), pytest.raises(OSError, match=r"model\.safetensors"):
        translator.save_weights(copy)
    assert (copy / "model.safetensors").read_bytes() == before


def test_output_the_terminal_cannot_show(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        "é".encode("ascii")

    monkeypatch.setattr("seq2seq_ext.cli.info.run", fail)
    assert "cannot be written as ascii" in run("info").error_line()


def test_out_of_memory_and_defects(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("seq2seq_ext.cli.info.run", fail)
    message = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert "out of memory" in run("info").error_line()
    message = "a defect of ours"  # is not dressed up as bad input
    with pytest.raises(RuntimeError, match="a defect"):
        run("info")


def test_unknown_instruction_set(model: Path) -> None:
    """A fresh process: the set is chosen once."""
    result = subprocess.run(
        [sys.executable, "-m", "seq2seq_ext", "translate", str(model), "hello"],
        env={**os.environ, "SEQ2SEQ_EXT_CPU_ISA": "foo"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "SEQ2SEQ_EXT_CPU_ISA: expected one of" in result.stderr


def test_brackets_in_names(run: Run, data: Path, tmp_path: Path) -> None:
    pairs = shutil.copy(data / "pairs.tsv", tmp_path / "a[bold].tsv")
    directory = tmp_path / "m[" / "x]"
    result = run("train", pairs, "-o", directory, "--epochs", 1, *SMALL)
    assert result.code == 0
    assert f"model in {directory}" in result.err
    assert run("evaluate", directory, pairs).code == 0


def test_commands_to_paste_start_this_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert console.command_prefix() == ".venv/bin/python -m seq2seq_ext"
    monkeypatch.setattr("sys.executable", "/an other/python")
    assert console.command_prefix() == "'/an other/python' -m seq2seq_ext"
    # The script on PATH is this program only where it stands beside this interpreter.
    script = folder / "seq2seq-ext"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert console.command_prefix() == "'/an other/python' -m seq2seq_ext"
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    assert console.command_prefix() == "seq2seq-ext"
    # make puts the environment on the PATH of what it runs, not of the shell it returns to.
    monkeypatch.setenv("MAKELEVEL", "1")
    assert console.command_prefix() == ".venv/bin/python -m seq2seq_ext"
