# SPDX-License-Identifier: MIT
"""`--dtype`: what the weights are read in, and what is said where they cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2seq_ext.cli import options
from seq2seq_ext.cli.console import CommandError
from seq2seq_ext.training.translator import Translator

from .conftest import Run, sentences

TEXTS = [text for text in sentences(60) if text.strip()]
DTYPES = ("float32", "bfloat16", "int8")


@pytest.fixture(scope="module")
def narrow(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with weights that are stored in bfloat16."""
    copy = Path(shutil.copytree(lively, tmp_path_factory.mktemp("narrow") / "model"))
    weights = load_file(copy / "model.safetensors")
    save_file({n: w.to(torch.bfloat16) for n, w in weights.items()}, copy / "model.safetensors")
    return copy


def prepared(model: Path, dtype: torch.dtype) -> list[str]:
    translator = Translator.load(model)
    translator.model.prepare_for_decoding(dtype)
    found = translator.hypotheses(TEXTS)
    return [f"{row.score:.4f}\t{row.normalized:.4f}\t{row.text}" for row, *_ in found]


def test_weights_are_read_in_it(run: Run, lively: Path) -> None:
    found = {}
    for dtype in DTYPES:
        lines = run("translate", lively, *TEXTS, "--scores", "--dtype", dtype).out.splitlines()
        assert lines == prepared(lively, getattr(torch, dtype))
        found[dtype] = lines
    assert len({tuple(lines) for lines in found.values()}) == 3  # of int8 the scores are others
    texts = {dtype: [line.split("\t")[2] for line in found[dtype]] for dtype in DTYPES}
    assert texts["int8"] == texts["bfloat16"]
    # Packed, and not: the same words.
    assert texts["float32"] == Translator.load(lively).translate(TEXTS)
    assert run("translate", lively, *TEXTS, "--scores").out.splitlines() == found["float32"]


def test_the_default_is_what_the_weights_are_stored_in(
    run: Run, narrow: Path, source: Path, tmp_path: Path
) -> None:
    lines = run("translate", narrow, *TEXTS, "--scores").out.splitlines()
    assert lines == prepared(narrow, torch.bfloat16)
    assert run("translate", narrow, *TEXTS, "--scores", "--dtype", "float32").out.splitlines() == (
        prepared(narrow, torch.float32)
    )
    translator = Translator.load(narrow)
    assert options.prepare(translator, None) == "bfloat16"
    weights = translator.model.prepared_weights()
    assert weights is not None
    assert weights.dtype == torch.bfloat16


def test_evaluate(run: Run, lively: Path, tmp_path: Path) -> None:
    pairs, report = tmp_path / "pairs.tsv", tmp_path / "found.tsv"
    pairs.write_text("".join(f"{text}\tx\n" for text in TEXTS), encoding="utf-8")
    for dtype in DTYPES:
        assert run("evaluate", lively, pairs, "--hypotheses", report, "--dtype", dtype).code == 0
        found = [line.split("\t")[1] for line in report.read_text("utf-8").splitlines()]
        expected = prepared(lively, getattr(torch, dtype))
        assert found == [line.split("\t")[2] for line in expected]


@pytest.mark.parametrize("command", ["translate", "evaluate"])
def test_another_name(command: str, run: Run, lively: Path) -> None:
    line = run(command, lively, "hello", "--dtype", "float16").error_line()
    assert "'float16' is not one of 'float32', 'bfloat16', 'int8'" in line


def test_weights_that_have_no_int8(run: Run, lively: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(lively, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["decoder.output.weight"][3, 3] = float("inf")
    save_file(weights, copy / "model.safetensors")
    line = run("translate", copy, "hello", "--dtype", "int8").error_line()
    assert "error: --dtype int8: int8 needs finite output weights" in line


def test_a_model_that_is_not_on_the_cpu(lively: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: what is asked for is an error, what is not asked for a remark."""
    said: list[str] = []
    monkeypatch.setattr(options.log, "print", said.append)
    translator = Translator.load(lively)
    translator.model.to("meta")
    reason = "is for models on the CPU, this one is on meta"
    for dtype in DTYPES:
        with pytest.raises(CommandError, match=f"^--dtype {dtype}: {reason}$"):
            options.prepare(translator, dtype)  # type: ignore[arg-type]
    assert not said
    assert options.prepare(translator, None) == "float32"
    assert said == [f"weights are read as they are, not packed for decoding: {reason}"]


def test_resuming_with_it(
    run: Run, lively: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.txt"
    arguments = ["translate", lively, "-i", source, "-o", output, "--window", 20]
    whole = {}
    for dtype in ("float32", "int8"):
        assert run(*arguments, "--dtype", dtype).code == 0
        whole[dtype] = output.read_text("utf-8")
    assert whole["float32"] != whole["int8"]

    def begun(*dtype: str) -> None:
        """One window of three is done."""
        calls = []

        def decode(*arguments: object, **options: object) -> object:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(*arguments, **options)  # type: ignore[arg-type]

        original = Translator.decode
        with monkeypatch.context() as patch:
            patch.setattr(Translator, "decode", decode)
            assert run(*arguments, *dtype).code == 130

    begun()
    record = json.loads(output.with_name("out.txt.partial.json").read_text())
    assert (record["lines"], record["options"]["--dtype"]) == (20, "float32")
    line = run(*arguments, "--resume", "--dtype", "int8").error_line()
    assert "was begun with other options (--dtype: float32 before, int8 now)" in line
    assert run(*arguments, "--resume", "--dtype", "float32").code == 0  # the default, said aloud
    assert output.read_text("utf-8") == whole["float32"]
    begun("--dtype", "int8")
    assert "--dtype: int8 before, float32 now" in run(*arguments, "--resume").error_line()
    assert run(*arguments, "--resume", "--dtype", "int8").code == 0
    assert output.read_text("utf-8") == whole["int8"]
