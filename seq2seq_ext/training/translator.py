# SPDX-License-Identifier: MIT
"""A trained model with its tokenizers: translating text, and the model directory.

A model directory holds `config.json`, `model.safetensors`, `source_tokenizer.json` and
`target_tokenizer.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_ext.data.batching import encode_texts, lengths_of, pad
from seq2seq_ext.data.tokenizer import EOS, KINDS, PAD, SOS, UNK, Tokenizer
from seq2seq_ext.generation import GenerateOutput
from seq2seq_ext.nn import Seq2Seq
from seq2seq_ext.training.config import ModelConfig
from seq2seq_ext.training.files import replacing, write_text

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SOURCE_TOKENIZER, TARGET_TOKENIZER = "source_tokenizer.json", "target_tokenizer.json"


class ModelError(ValueError):
    """A model that cannot be read or used; the message says which file, or what is wrong."""


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation of T tokens."""

    text: str
    ids: list[int]  # T, <eos> included
    score: float  # sum of the tokens' log-probabilities
    normalized: float  # this over T ** length_penalty
    attention: Tensor | None  # (T, S) where output_attentions asked for it


class Translator:
    """A `Seq2Seq` model that takes and gives text.

    >>> translator = Translator.load("demo/model")  # doctest: +SKIP
    >>> translator.translate(["I love you"])  # doctest: +SKIP
    ["Je t'aime"]
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Tokenizer,
        target: Tokenizer,
        training: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.source, self.target = model, source, target
        self.training = training or {}

    @classmethod
    def build(
        cls, config: ModelConfig, source: Tokenizer, target: Tokenizer, *, max_new_tokens: int
    ) -> Translator:
        """A model with fresh weights (torch's default generator) for these vocabularies."""
        model = Seq2Seq.build(
            source.vocab_size,
            target.vocab_size,
            pad_token_id=PAD,
            bos_token_id=SOS,
            eos_token_id=EOS,
            **config.to_dict(),
        )
        # A reader has no use for <unk>: the next best token stands in its place.
        model.generation_config = model.generation_config.replace(
            max_new_tokens=max_new_tokens, suppress_tokens=[UNK]
        )
        return cls(model, source, target)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, S) ids and (B,) lengths. Raises DataError where a text has no tokens."""
        rows = encode_texts(self.source, texts)
        return pad(rows), lengths_of(rows)

    def translate(self, texts: Sequence[str], *, batch_size: int = 64, **options: Any) -> list[str]:
        """The translation of each text, in order. Raises DataError and ModelError: `generate`."""
        found = self.hypotheses(texts, batch_size=batch_size, **options)
        return [best.text for best, *_ in found]

    def hypotheses(
        self, texts: Sequence[str], *, batch_size: int = 64, **options: Any
    ) -> list[list[Hypothesis]]:
        """num_return_sequences translations of each text, in order, the best of beam search first.

        Raises DataError and ModelError: `generate`.
        """
        results: list[list[Hypothesis]] = [[] for _ in texts]
        for found in self.decode(texts, batch_size=batch_size, **options):
            for index, rows in found.items():
                results[index] = rows
        return results

    def decode(
        self, texts: Sequence[str], *, batch_size: int = 64, **options: Any
    ) -> Iterator[dict[int, list[Hypothesis]]]:
        """The hypotheses of one batch after the other, by the texts' indices; see `batches`."""
        for indices, output in self.batches(texts, batch_size=batch_size, **options):
            rows = self._hypotheses(output)
            count = len(rows) // len(indices)
            yield {index: rows[i * count : (i + 1) * count] for i, index in enumerate(indices)}

    def _hypotheses(self, output: GenerateOutput) -> list[Hypothesis]:
        lengths = output.lengths.tolist()
        scores = zip(
            output.sequences_scores.tolist(), output.normalized_scores.tolist(), strict=True
        )
        found = []
        rows = zip(output.sequences.tolist(), lengths, scores, strict=True)
        for at, (row, length, (score, normalized)) in enumerate(rows):
            ids, weights = row[:length], None
            if output.attentions is not None:
                weights = output.attentions[at, :length]
            found.append(Hypothesis(self.target.decode(ids), ids, score, normalized, weights))
        return found

    def generate(
        self, texts: Sequence[str], *, batch_size: int = 64, **options: Any
    ) -> list[tuple[list[int], GenerateOutput]]:
        """Decoded batches of similar length, each with the indices of its texts. Samples are keyed
        by the seed and a text's index: they do not depend on the batches.

        Raises:
            DataError: a text has no tokens, or is not Unicode.
            ModelError: an option is out of range, or the weights hold NaN.
        """
        return list(self.batches(texts, batch_size=batch_size, **options))

    def batches(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        first_row: int = 0,
        skip_empty: bool = False,
        **options: Any,
    ) -> Iterator[tuple[list[int], GenerateOutput]]:
        """`generate`, batch by batch as they are decoded, for texts that are part of a longer list.

        first_row: where in that list the first text stands; with one seed for all parts, samples
        are those of the whole list. skip_empty: texts without tokens are left out, not refused.
        """
        rows = encode_texts(self.source, texts, allow_empty=skip_empty)
        order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i]))
        options = self.with_seed(options)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            chosen = [rows[i] for i in indices]
            try:
                output = self.model.generate(
                    pad(chosen),
                    lengths_of(chosen),
                    row_ids=[first_row + i for i in indices],
                    return_dict_in_generate=True,
                    **options,
                )
            except ValueError as error:
                raise ModelError(str(error)) from error
            assert isinstance(output, GenerateOutput)
            yield indices, output

    def with_seed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with a seed for all batches, drawn where sampling was given none."""
        config = self.model.generation_config
        if options.get("do_sample", config.do_sample) and options.get("seed", config.seed) is None:
            return {**options, "seed": int(torch.empty((), dtype=torch.int64).random_())}
        return options

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes the model directory, file by file, each whole or not at all."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        for name, tokenizer in ((SOURCE_TOKENIZER, self.source), (TARGET_TOKENIZER, self.target)):
            with replacing(path / name) as temporary:
                tokenizer.save(temporary)
        self.save_weights(path)
        config = {
            "format": FORMAT,
            "tokenizers": {"source": self.source.kind, "target": self.target.kind},
            "model": self.model.config(),
            "training": self.training,
        }
        write_text(path / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def save_weights(self, path: Path) -> None:
        from safetensors.torch import save_file

        weights = {name: t.detach().contiguous() for name, t in self.model.state_dict().items()}
        with replacing(path / WEIGHTS) as temporary:
            save_file(weights, str(temporary))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Translator:
        """Reads a model directory.

        Raises:
            ModelError: a file is missing, broken, or does not fit the others.
        """
        path = Path(directory)
        if not path.is_dir():
            raise ModelError(f"{path}: no such model directory")
        for name in (CONFIG, WEIGHTS, SOURCE_TOKENIZER, TARGET_TOKENIZER):
            if not (path / name).is_file():
                raise ModelError(f"{path}: not a model directory, {name} is missing")
        config = _read_config(path / CONFIG)
        try:
            source = Tokenizer.load(path / SOURCE_TOKENIZER, config["tokenizers"]["source"])
            target = Tokenizer.load(path / TARGET_TOKENIZER, config["tokenizers"]["target"])
        except (ValueError, OSError) as error:
            raise ModelError(str(error)) from None
        model = _load_model(path, config["model"])
        sizes = (model.encoder.vocab_size, model.decoder.vocab_size)
        if sizes != (source.vocab_size, target.vocab_size):
            raise ModelError(f"{path}: the tokenizers' vocabularies are not the model's")
        return cls(model, source, target, config.get("training"))


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """Tells one model directory from another: a digest of the files that translating reads."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS, SOURCE_TOKENIZER, TARGET_TOKENIZER):
        with (Path(directory) / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        digest.update(name.encode())
    return digest.hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: not readable ({error})") from None
    if not isinstance(config, dict) or not {"format", "tokenizers", "model"} <= set(config):
        raise ModelError(f"{path}: not a model configuration")
    if config["format"] != FORMAT:
        raise ModelError(f"{path}: format {config['format']!r}, this version reads {FORMAT}")
    kinds = config["tokenizers"]
    for side in ("source", "target"):
        kind = kinds.get(side) if isinstance(kinds, dict) else None
        if kind not in KINDS:
            raise ModelError(
                f"{path}: tokenizers.{side} must be one of {', '.join(KINDS)}, got {kind!r}"
            )
    return config


def _load_model(path: Path, config: dict[str, Any]) -> Seq2Seq:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(str(path / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path / WEIGHTS}: broken ({error})") from None
    dtype = next(iter(weights.values())).dtype if weights else torch.float32
    try:
        model = Seq2Seq.from_config(config, dtype=dtype)
        model.load_state_dict(weights)
        model.generation_config.validate(model.decoder.vocab_size)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise ModelError(f"{path}: weights and configuration do not fit ({reason})") from None
    return model.eval()
