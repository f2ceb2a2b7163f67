# SPDX-License-Identifier: MIT
"""Bad input: one clear line on stderr, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seq2seq_ext.data import phrasebook

from .conftest import SMALL, Run


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    files = {
        "empty_line.tsv": b"a\tb\n\nc\td\n",
        "no_tab.tsv": b"a\tb\nc d\n",
        "not_utf8.tsv": b"a\tb\nc\t\xe9t\xe9\n",
        "empty.tsv": b"",
        "two.txt": b"a\nb\n",
        "three.txt": b"a\nb\nc\n",
        "hole.txt": b"a\n\nb\n",
        "broken.gz": b"\x1f\x8b\x08\x00oops",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["info", "--nonsense"], "No such option: --nonsense"),
        (["translate"], "Missing argument"),
        (["train", "{bad}/two.txt", "-o", "{bad}/m", "--cell", "cnn"], "cnn"),
        (["train", "{bad}/two.txt", "-o", "{bad}/m", "--layers", "0"], "--layers"),
        (["train", "{bad}/missing.tsv", "-o", "{bad}/m"], "missing.tsv: no such file"),
        (["train", "{bad}/empty_line.tsv", "-o", "{bad}/m"], "empty_line.tsv:2: empty line"),
        (["train", "{bad}/no_tab.tsv", "-o", "{bad}/m"], "no_tab.tsv:2: expected source TAB"),
        (["train", "{bad}/not_utf8.tsv", "-o", "{bad}/m"], "not_utf8.tsv:2: not UTF-8"),
        (["train", "{bad}/empty.tsv", "-o", "{bad}/m"], "no lines"),
        (["train", "{bad}/broken.gz", "-o", "{bad}/m"], "broken gzip"),
        (["train", "{bad}/two.txt"], "--output is missing"),
        (["train", "-o", "{bad}/m"], "give a TSV file, or --source and --target"),
        (
            ["train", "--source", "{bad}/two.txt", "--target", "{bad}/three.txt", "-o", "{bad}/m"],
            "two.txt has 2 lines but",
        ),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/two.txt"], "not a directory"),
        (["train", "{data}/pairs.tsv", "-o", "{model}"], "holds a model already"),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--held-out", "5000"], "cannot hold out"),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--lr", "0"], "--lr: expected more than 0"),
        (
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--context", "initial_state",
             "--input-feeding"],
            "error: --input-feeding is for --context 'attention'",
        ),
        (
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--context", "initial_state",
             "--bridge", "zero"],
            "error: --context 'initial_state' with --bridge 'zero'",
        ),
        (
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--context", "every_step",
             "--attention", "dot"],
            "error: --attention is for --context 'attention'",
        ),
        (
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--hidden", "7"],
            "--hidden must be even (each direction takes half of it), got 7",
        ),
        (
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--label-smoothing", "1"],
            "--label-smoothing: expected in [0, 1)",
        ),
        (
            # One matrix of this takes more than any machine's addresses: nothing is allocated.
            ["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--hidden", "2000000000",
             "--embedding", "2000000000"],
            "does not fit into memory",
        ),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--seed", "9" * 20], "--seed"),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--hidden", "9" * 20], "--hidden"),
        (["train", "{data}/pairs.tsv", "-o", "{bad}/m", "--vocab-size", "9" * 20], "--vocab-size"),
        (["demo", "-o", "{bad}/m", "--seed", "9" * 20], "--seed"),
        (["info", "--threads", "9" * 20], "--threads"),
        (["train", "--resume", "{bad}"], "not a model directory"),
        (["train", "--resume", "{model}", "--lr", "0.1"], "--lr cannot change"),
        (["train", "{bad}/two.txt", "--resume", "{model}"], "expected source TAB"),
        (["train", "{data}/some.tsv", "--resume", "{model}"], "other training data"),
        (["translate", "{bad}/none", "hello"], "no such model directory"),
        (["translate", "{bad}", "hello"], "config.json is missing"),
        (
            ["translate", "{model}", "-i", "{bad}/hole.txt", "--attention", "{bad}/x.png"],
            "hole.txt:2: empty line",
        ),
        (["translate", "{model}", "-i", "{bad}/empty.tsv"], "no lines"),
        (["translate", "{model}", " "], "sentence:1: empty line"),
        (["translate", "{model}", "hello", "-o", "{bad}/none/out"], "cannot be written"),
        (["translate", "{model}", "hello", "--beam", "0"], "--beam"),
        (["translate", "{model}", "hello", "--top-p", "2"], "--top-p"),
        (
            ["translate", "{model}", "hello", "--temperature", "0", "--sample"],
            "error: --temperature must be finite and greater than 0, got 0.0",
        ),
        (
            ["translate", "{model}", "hello", "--temperature", "2"],
            "error: --temperature has no effect without --sample",
        ),
        (
            ["translate", "{model}", "hello", "--coverage-penalty", "1"],
            "error: --coverage-penalty has no effect without --beam above 1",
        ),
        (
            ["translate", "{model}", "hello", "--n-best", "3", "--beam", "2"],
            "error: --n-best must be at most --beam (2) unless --sample is set, got 3",
        ),
        (
            ["translate", "{model}", "hello", "--sample", "--beam", "2"],
            "error: --beam above 1 and --sample exclude each other",
        ),
        (["translate", "{model}", "hello", "--attention", "{bad}/x.txt"], "ending in .png, .pdf"),
        (["translate", "{model}", "hello", "--attention", "{bad}/none/x.png"], "cannot be written"),
        (["translate", "{model}", "hello", "--attention", "{bad}/none/x.jsonl"], "cannot be"),
        (
            ["translate", "{model}", "-i", "{data}/pairs.en", "--attention", "{bad}/x.png"],
            "--attention draws at most 12 sentences, got 300; a file ending in .jsonl takes any",
        ),
        (["evaluate", "{model}", "{bad}/no_tab.tsv"], "no_tab.tsv:2"),
        (["evaluate", "{model}", "{data}/pairs.tsv", "--references", "all"], "all"),
        (["translate", "{model}", "caf\udce9"], "not UTF-8"),
        (["trace", "{model}", "caf\udce9"], "not UTF-8"),
        (["trace", "{model}", ""], "the sentence is empty"),
        (["trace", "{model}", "I love you", "--plot", "{bad}/none/x.png"], "cannot be written"),
        (["demo", "-o", "{bad}/m", "--hidden", "7"], "expected an even number"),
    ],
)  # fmt: skip
def test_one_line_and_exit_code_2(
    arguments: list[str], message: str, run: Run, bad: Path, data: Path, model: Path
) -> None:
    filled = [argument.format(bad=bad, data=data, model=model) for argument in arguments]
    assert message in run(*filled).error_line()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "target_tokenizer.json"])
def test_corrupt_model(name: str, run: Run, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / name).write_bytes((copy / name).read_bytes()[:50])
    assert name in run("translate", copy, "hello").error_line()


def test_corrupt_checkpoint(run: Run, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / "checkpoint.pt").write_bytes(b"x" * 100)
    assert "broken checkpoint" in run("train", "--resume", copy).error_line()


def test_stdin_with_bad_bytes(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Stdin:
        buffer = io.BytesIO(b"ok\n\xff\n")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Stdin())
    assert "stdin:2: not UTF-8" in run("translate", model).error_line()


def test_missing_extra_is_one_sentence() -> None:
    """A fresh interpreter in which `typer` cannot be imported."""
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from seq2seq_ext.__main__ import main\n"
        "sys.exit(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "pip install seq2seq_ext[train]" in result.stderr


def test_ctrl_c_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    """A real signal to a real process; then the model translates and the run goes on."""
    pairs, output = tmp_path / "pairs.tsv", tmp_path / "m"
    pairs.write_text("".join(f"{s}\t{t}\n" for s, t in phrasebook.pairs(600)), encoding="utf-8")
    command = [sys.executable, "-m", "seq2seq_ext"]
    train = [*command, "train", str(pairs), "-o", str(output), "--epochs", "100000", *SMALL]
    process = subprocess.Popen(train, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:  # wait for the first finished epoch
            if line.startswith("epoch 1/"):
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, rest
    assert "--resume" in rest
    assert "Traceback" not in rest
    found = subprocess.run(
        [*command, "translate", str(output), "I love you"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    started = time.monotonic()
    resume = [*command, "train", "--resume", str(output), "--max-minutes", "0.001"]
    resumed = subprocess.run(resume, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch" in resumed.stderr
    assert "time is up" in resumed.stderr, (resumed.stderr, time.monotonic() - started)
