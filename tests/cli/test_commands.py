# SPDX-License-Identifier: MIT
"""The commands on good input."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_ext.cli.console import command_prefix
from seq2seq_ext.cli.demo import SENTENCES
from seq2seq_ext.training.translator import Translator

from .conftest import SMALL, Run


def test_train_writes_a_model_directory(model: Path) -> None:
    names = {path.name for path in model.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "source_tokenizer.json",
        "target_tokenizer.json",
        "checkpoint.pt",
    }
    config = json.loads((model / "config.json").read_text())
    assert config["model"]["decoder"]["hidden_size"] == 16
    assert config["training"]["epochs"] == 2


def test_help_and_no_arguments(run: Run) -> None:
    for arguments in ((), ("--help",), ("train", "--help")):
        result = run(*arguments)
        assert result.code == 0
        assert "Usage: seq2seq-ext" in result.out
    for command in ("demo", "train", "translate", "evaluate", "trace", "info"):
        assert command in run("--help").out


def test_info(run: Run) -> None:
    out = run("info").out
    for word in ("seq2seq_ext", "torch", "threads", "isa"):
        assert word in out


def test_translate_arguments_files_and_stdin(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["I love you", "She loves him", "Do you love me?"]
    expected = Translator.load(model).translate(texts)
    assert run("translate", model, "Do you love me ?").out.splitlines() == expected[2:]
    by_argument = run("translate", model, *texts)
    assert by_argument.out.splitlines() == expected

    content = "\n".join(texts).encode()
    plain, packed = tmp_path / "in.txt", tmp_path / "in.txt.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        assert run("translate", model, "-i", path).out.splitlines() == expected
    output = tmp_path / "out.txt"
    assert run("translate", model, "-i", plain, "-o", output).out == ""
    assert output.read_text(encoding="utf-8").splitlines() == expected

    class Stdin:
        buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Stdin())
    assert run("translate", model).out.splitlines() == expected


TEXTS = ["I love you", "She loves him", "Do you love me?"]


def test_translate_with_beams_and_scores(run: Run, model: Path, tmp_path: Path) -> None:
    translator = Translator.load(model)
    translator.model.prepare_for_decoding(torch.float32)  # as the command does
    found = translator.hypotheses(TEXTS, num_beams=4, num_return_sequences=3, length_penalty=0.7)
    assert run(
        "translate", model, *TEXTS, "--beam", 4, "--length-penalty", 0.7
    ).out.splitlines() == [rows[0].text for rows in found]
    options = ["--beam", 4, "--n-best", 3, "--length-penalty", 0.7, "--scores"]
    rows = [line.split("\t") for line in run("translate", model, *TEXTS, *options).out.splitlines()]
    assert rows == [
        [str(number), f"{h.score:.4f}", f"{h.normalized:.4f}", h.text]
        for number, hypotheses in enumerate(found, 1)
        for h in hypotheses
    ]
    scores = [float(row[2]) for row in rows]
    assert all(scores[at : at + 3] == sorted(scores[at : at + 3])[::-1] for at in (0, 3, 6))
    # One sentence a batch, to a file: the same.
    output = tmp_path / "out.tsv"
    assert run("translate", model, *TEXTS, *options, "--batch-size", 1, "-o", output).out == ""
    assert [line.split("\t") for line in output.read_text("utf-8").splitlines()] == rows
    one = run("translate", model, *TEXTS, "--scores").out.splitlines()
    assert [line.split("\t")[2] for line in one] == translator.translate(TEXTS)


def test_coverage_penalty_reaches_the_search(run: Run, lively: Path) -> None:
    translator = Translator.load(lively)
    translator.model.prepare_for_decoding(torch.float32)
    beams = ["--beam", 4, "--n-best", 2, "--scores"]
    lines = []
    for penalty in (0, 0.2, 5):
        found = translator.hypotheses(
            TEXTS, num_beams=4, num_return_sequences=2, coverage_penalty=float(penalty)
        )
        lines.append(run("translate", lively, *TEXTS, *beams, "--coverage-penalty", penalty).out)
        assert lines[-1].splitlines() == [
            f"{number}\t{h.score:.4f}\t{h.normalized:.4f}\t{h.text}"
            for number, hypotheses in enumerate(found, 1)
            for h in hypotheses
        ]
    assert lines[0] == run("translate", lively, *TEXTS, *beams).out
    assert len(set(lines)) == 3
    words = [[line.split("\t")[3] for line in text.splitlines()] for text in lines]
    assert words[0] != words[2]  # not the scores alone


def test_translate_by_sampling(run: Run, model: Path) -> None:
    options = ["--sample", "--n-best", 4, "--temperature", 2, "--top-k", 0, "--seed", 5]
    first = run("translate", model, *TEXTS, *options).out.splitlines()
    assert [line.split("\t")[0] for line in first] == [str(1 + i // 4) for i in range(12)]
    assert len({line.split("\t")[1] for line in first}) > 4
    assert run("translate", model, *TEXTS, *options, "--batch-size", 1).out.splitlines() == first
    other = run("translate", model, *TEXTS, *options[:-1], 6).out.splitlines()
    assert other != first
    greedy = run("translate", model, *TEXTS).out.splitlines()
    for narrow in (["--top-k", 1], ["--top-p", 0], ["--min-p", 1]):
        assert run("translate", model, *TEXTS, "--sample", *narrow).out.splitlines() == greedy


def test_translate_draws_attention(run: Run, model: Path, tmp_path: Path) -> None:
    picture, lines = tmp_path / "a.png", tmp_path / "a.jsonl"
    expected = run("translate", model, *TEXTS, "--beam", 3).out
    assert run("translate", model, *TEXTS, "--beam", 3, "--attention", picture).out == expected
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("translate", model, *TEXTS, "--beam", 3, "--attention", lines).out == expected
    translator = Translator.load(model)
    for text, line in zip(TEXTS, lines.read_text("utf-8").splitlines(), strict=True):
        found = json.loads(line)
        assert found["source"] == translator.source.display(translator.source.encode(text))
        assert [len(row) for row in found["weights"]] == [len(found["source"])] * len(
            found["target"]
        )
        assert all(abs(sum(row) - 1) < 1e-4 for row in found["weights"])
        assert found["target"][-1] == "<eos>" or len(found["target"]) > 10


def test_translate_keeps_the_models_own_way_of_decoding(
    run: Run, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    config["model"]["generation"] |= {"num_beams": 3, "num_return_sequences": 2}
    (copy / "config.json").write_text(json.dumps(config))
    expected = run("translate", model, *TEXTS, "--beam", 3, "--n-best", 2).out
    assert run("translate", copy, *TEXTS).out == expected
    assert run("translate", copy, *TEXTS, "--beam", 1, "--n-best", 1).out == (
        run("translate", model, *TEXTS).out
    )


def test_evaluate_tsv_parallel_and_json(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    report = tmp_path / "hypotheses.tsv"
    tsv = run("evaluate", model, data / "pairs.tsv", "--hypotheses", report, "--json")
    scores = json.loads(tsv.out)
    assert scores["sentences"] == 300
    assert "tok:13a" in scores["bleu_signature"]
    assert len(report.read_text(encoding="utf-8").splitlines()) == 300
    two = run(
        "evaluate", model, "--source", data / "pairs.en", "--target", data / "pairs.fr", "--json"
    )
    assert json.loads(two.out) == scores
    text = run("evaluate", model, data / "pairs.tsv").out
    for word in ("exact match", "token accuracy", "BLEU", "chrF", "WER", "signature", "13a"):
        assert word in text


def test_any_reference_counts(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Translator, "translate", lambda self, t, **_: ["Je t'aime !"] * len(t))
    pairs = tmp_path / "pairs.tsv"
    # A no-break space in the reference is a space.
    content = "I love you\tJe t'adore\nI love you\tJe t'aime\u202f!\n"
    pairs.write_text(content, encoding="utf-8")
    each = json.loads(run("evaluate", model, pairs, "--json").out)
    any_ = json.loads(run("evaluate", model, pairs, "--json", "--references", "any").out)
    assert (each["sentences"], any_["sentences"]) == (2, 1)
    assert (each["wer"], any_["wer"]) == (0.5, 0.0)


def test_trace_shows_every_symbol(run: Run, model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "trace.png"
    result = run("trace", model, "I love you", "--plot", picture)
    assert result.code == 0
    for word in ("x_t", "h_t", "c_t'", "s_t'", "y_t'", "Attention weights", "love", "<sos>"):
        assert word in result.out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("context", ["initial_state", "every_step"])
def test_trace_without_attention(context: str, run: Run, data: Path, tmp_path: Path) -> None:
    directory, picture = tmp_path / "m", tmp_path / "p.png"
    options = ["--context", context, "--cell", "lstm", "--epochs", 1, *SMALL]
    assert run("train", data / "pairs.tsv", "-o", directory, *options).code == 0
    result = run("trace", directory, "I love you", "--plot", picture)
    assert "Context: c =" in result.out
    assert "Attention" not in result.out
    assert picture.stat().st_size > 1000


def test_trace_numbers_are_the_models(model: Path) -> None:
    import torch

    from seq2seq_ext.cli.trace import make_trace

    translator = Translator.load(model)
    trace = make_trace(translator, "I love you")
    assert trace.source == ["I", "love", "you"]
    assert trace.translation == translator.translate(["I love you"])[0]
    weights = translator.model.encoder.embedding.weight
    ids = translator.source.encode("I love you")
    assert torch.equal(trace.x, weights[ids])
    assert trace.attention is not None
    ones = torch.ones(len(trace.target))
    torch.testing.assert_close(trace.attention.sum(1), ones)
    # c_t' is the mean of h_1 ... h_T under the attention weights.
    torch.testing.assert_close(trace.attention @ trace.h, trace.c, rtol=1e-5, atol=1e-6)
    # Candidates stand in order, the token picked first, its probability that of the output layer.
    assert [row[0] for row in trace.candidates] == trace.target
    assert bool((trace.probabilities.diff(dim=1) <= 0).all())


def test_held_out_sentences_are_scored(run: Run, data: Path, tmp_path: Path) -> None:
    directory = tmp_path / "m"
    options = ["--held-out", 30, "--valid-size", 20, "--epochs", 1, *SMALL]
    result = run("train", data / "pairs.tsv", "-o", directory, *options)
    assert "250 training, 20 validation, 30 held-out pairs" in result.err
    assert "exact match" in result.out
    held_out = (directory / "held_out.tsv").read_text(encoding="utf-8").splitlines()
    assert len(held_out) == 30
    known = set((data / "pairs.tsv").read_text(encoding="utf-8").splitlines())
    assert set(held_out) <= known


@pytest.mark.parametrize(
    "options",
    [
        ["--tokenizer", "character", "--cell", "lstm", "--layers", "2", "--no-bidirectional"],
        ["--source-tokenizer", "bpe", "--target-tokenizer", "whitespace", "--vocab-size", "200"],
        ["--attention", "additive", "--input-feeding", "--tied-embeddings", "--lowercase"],
        ["--label-smoothing", "0.1", "--teacher-forcing", "0.7", "--dtype", "float64"],
        ["--schedule", "linear", "--clip", "0", "--dtype", "bfloat16", "--max-words", "4"],
        ["--bridge", "copy", "--context", "every_step", "--patience", "1", "--threads", "1"],
    ],
)
def test_train_options(options: list[str], run: Run, data: Path, tmp_path: Path) -> None:
    small = ["--hidden", "16", "--embedding", "16", "--epochs", "1", "--seed", "3"]
    inputs = ["--source", data / "pairs.en", "--target", data / "pairs.fr", "--held-out", 20]
    directory = tmp_path / "m"
    result = run("train", *inputs, "-o", directory, *small, *options)
    assert result.code == 0, result.err
    assert run("translate", directory, "I love you").code == 0


def test_validation_files(run: Run, data: Path, tmp_path: Path) -> None:
    sides = ["--valid-source", data / "pairs.en", "--valid-target", data / "pairs.fr"]
    for number, given in enumerate((["--valid", data / "pairs.tsv"], sides)):
        result = run(
            "train", data / "pairs.tsv", "-o", tmp_path / str(number), *given, "--epochs", 1, *SMALL
        )
        assert "300 training, 300 validation" in result.err


def test_resume_continues_exactly(run: Run, data: Path, tmp_path: Path) -> None:
    import torch

    options = [data / "pairs.tsv", "--held-out", 10, *SMALL]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("train", *options, "-o", whole, "--epochs", 3).code == 0
    assert run("train", *options, "-o", parts, "--epochs", 1).code == 0
    result = run("train", "--resume", parts, "--epochs", 3)
    assert result.code == 0
    assert "resuming after epoch 1" in result.err
    a, b = (Translator.load(path).model.state_dict() for path in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_demo(run: Run, tmp_path: Path) -> None:
    options = ["--size", 400, "--epochs", 1, "--hidden", 8]
    result = run("demo", "-o", tmp_path / "demo", *options)
    assert result.code == 0, result.err
    for word in (*SENTENCES, "exact match", "torch.nn", "faster by", "attention.png"):
        assert word in result.out
    assert (tmp_path / "demo" / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "demo" / "model" / "config.json").is_file()
    for command in ("translate", "trace"):
        shown = f'{command_prefix()} {command} {tmp_path / "demo" / "model"} "I love you"'
        assert shown in result.out
    again = run("demo", "-o", tmp_path / "demo", *options)
    assert again.code == 0


def test_package_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from seq2seq_ext import __main__ as entry

    seen: list[str] = []
    call: Callable[[], int] = lambda: seen.append("run") or 5  # noqa: E731
    monkeypatch.setattr("seq2seq_ext.cli.main", call)
    assert entry.main() == 5
    assert seen == ["run"]
