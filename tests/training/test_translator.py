# SPDX-License-Identifier: MIT
"""The model directory: what comes back, what is refused; translating in any batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_ext.data.corpus import DataError, Pair
from seq2seq_ext.data.tokenizer import UNK
from seq2seq_ext.training.translator import CONFIG, WEIGHTS, ModelError, Translator

Make = Callable[..., Translator]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "lstm", "num_layers": 2, "bidirectional": False, "context": "initial_state"},
        {"cell": "rnn", "context": "every_step", "bridge": "mean"},
        {"attention": "additive", "input_feeding": True, "tied_embeddings": True},
    ],
)
def test_save_and_load(
    options: dict[str, object], make_translator: Make, pairs: list[Pair], tmp_path: Path
) -> None:
    translator = make_translator(**options)
    translator.save(tmp_path)
    again = Translator.load(tmp_path)
    assert again.model.config() == translator.model.config()
    for name, value in translator.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    texts = [source for source, _ in pairs[:10]]
    assert again.translate(texts) == translator.translate(texts)


def test_order_and_batch_do_not_matter(make_translator: Make, pairs: list[Pair]) -> None:
    translator = make_translator()
    with torch.no_grad():
        for parameter in translator.model.parameters():
            parameter.mul_(4)  # fresh weights say the same to everything
    texts = [source for source, _ in pairs[:40]]
    together = translator.translate(texts, batch_size=16)
    assert len(set(together)) >= 4
    assert together == [translator.translate([text])[0] for text in texts]
    assert translator.translate(texts[::-1], batch_size=7) == together[::-1]


def test_hypotheses(make_translator: Make, pairs: list[Pair]) -> None:
    translator = make_translator()
    with torch.no_grad():
        for parameter in translator.model.parameters():
            parameter.mul_(4)
    texts = [source for source, _ in pairs[:20]]
    options = {"num_beams": 3, "num_return_sequences": 2, "output_attentions": True}
    found = translator.hypotheses(texts, batch_size=7, **options)
    assert [len(rows) for rows in found] == [2] * 20
    assert translator.translate(texts, num_beams=3) == [rows[0].text for rows in found]
    for text, rows in zip(texts, found, strict=True):
        src, lengths = translator.encode([text])
        for hypothesis in rows:
            assert translator.target.decode(hypothesis.ids) == hypothesis.text
            score = translator.model.score(src, torch.tensor([hypothesis.ids]), lengths)
            assert float(score.sequences_scores) == pytest.approx(hypothesis.score, abs=1e-5)
            assert float(score.normalized_scores) == pytest.approx(hypothesis.normalized, abs=1e-5)
            assert hypothesis.attention is not None
            assert hypothesis.attention.shape[0] == len(hypothesis.ids)
        assert rows[0].normalized >= rows[1].normalized


def test_samples_do_not_depend_on_the_batches(make_translator: Make, pairs: list[Pair]) -> None:
    translator = make_translator()
    texts = [source for source, _ in pairs[:20]]
    for seed in ({"seed": 4}, {}):
        found = []
        for batch_size in (1, 7, 20):
            torch.manual_seed(9)
            found.append(translator.translate(texts, batch_size=batch_size, do_sample=True, **seed))
        assert found[0] == found[1] == found[2]


def test_parts_of_a_list_are_decoded_as_the_list(make_translator: Make, pairs: list[Pair]) -> None:
    translator = make_translator()
    texts = [source for source, _ in pairs[:20]]
    texts[3] = texts[12] = " "
    options = {"do_sample": True, "seed": 4, "skip_empty": True}
    whole = translator.hypotheses(texts, **options)
    assert whole[3] == whole[12] == []
    parts = []
    for start in (0, 5, 10, 15):
        part = texts[start : start + 5]
        parts += translator.hypotheses(part, batch_size=2, first_row=start, **options)
    assert parts == whole
    other = translator.hypotheses(texts[5:10], **options)
    assert other != whole[5:10]  # without first_row they are the samples of other rows


def test_unknown_token_is_never_written(make_translator: Make) -> None:
    translator = make_translator()
    with torch.no_grad():
        translator.model.decoder.output_parameters()[1][UNK] = 100.0
    assert "<unk>" not in translator.translate(["a b c"])[0]
    src, lengths = translator.encode(["a b c"])
    free = translator.model.generate(src, lengths, suppress_tokens=None)
    assert bool((free == UNK).all())


def test_empty_input(make_translator: Make) -> None:
    assert make_translator().translate([]) == []
    with pytest.raises(DataError, match="no tokens"):
        make_translator().translate(["a", " "])


def _break(path: Path, change: str) -> None:
    if change == "missing":
        (path / WEIGHTS).unlink()
    elif change == "weights":
        (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:100])
    elif change == "garbage":
        (path / WEIGHTS).write_bytes(b"garbage")
    elif change == "tokenizer":
        (path / "target_tokenizer.json").write_text("{}")
    else:
        config = json.loads((path / CONFIG).read_text())
        if change == "format":
            config["format"] = 99
        elif change == "sizes":
            config["model"]["decoder"]["hidden_size"] = 24
        elif change == "option":
            config["model"]["decoder"]["colour"] = "red"
        text = "{" if change == "json" else "[]" if change == "list" else json.dumps(config)
        (path / CONFIG).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "model.safetensors is missing"),
        ("weights", "broken"),
        ("garbage", "broken"),
        ("tokenizer", "not a tokenizer file"),
        ("format", "format 99"),
        ("sizes", "do not fit"),
        ("option", "do not fit"),
        ("json", "not readable"),
        ("list", "not a model configuration"),
    ],
)
def test_broken_directory(change: str, message: str, make_translator: Make, tmp_path: Path) -> None:
    make_translator().save(tmp_path)
    _break(tmp_path, change)
    with pytest.raises(ModelError, match=message) as caught:
        Translator.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model directory"):
        Translator.load(tmp_path / "none")


def test_other_vocabulary(make_translator: Make, tmp_path: Path) -> None:
    translator = make_translator()
    translator.save(tmp_path)
    smaller = type(translator.source).train("word", ["a b"])
    smaller.save(tmp_path / "source_tokenizer.json")
    with pytest.raises(ModelError, match="vocabularies are not the model's"):
        Translator.load(tmp_path)
