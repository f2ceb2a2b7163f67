# SPDX-License-Identifier: MIT
"""Tokenised pairs to padded batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_ext.data.corpus import DataError, Pair
from seq2seq_ext.data.tokenizer import EOS, PAD, SOS, Tokenizer

Example = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Batch:
    """One padded batch: y_0 = <sos> starts `target_in`, <eos> ends `target_out`."""

    source: Tensor  # (B, S) int64
    source_lengths: Tensor  # (B,) int64
    target_in: Tensor  # (B, T) int64
    target_out: Tensor  # (B, T) int64, <pad> where there is nothing to predict

    @property
    def target_tokens(self) -> int:
        return int((self.target_out != PAD).sum())


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, longest) int64, filled with <pad>."""
    out = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return out


def lengths_of(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(row) for row in rows], dtype=torch.int64)


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], name: str = "input", *, allow_empty: bool = False
) -> list[list[int]]:
    """Token ids of each text: x_1 ... x_T, with no special tokens.

    Raises:
        DataError: a text has no tokens (unless allow_empty), or holds surrogates (bytes that were
            not UTF-8).
    """
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"{name}:{number}: not UTF-8: {text!r}") from None
    encoded = tokenizer.encode_batch(texts)
    for number, ids in enumerate(encoded, 1):
        if not ids and not allow_empty:
            raise DataError(f"{name}:{number}: no tokens in {texts[number - 1]!r}")
    return encoded


def encode_pairs(source: Tokenizer, target: Tokenizer, pairs: Sequence[Pair]) -> list[Example]:
    """Token ids of each pair, <eos> at the end of the target."""
    sources = encode_texts(source, [s for s, _ in pairs], "source")
    targets = encode_texts(target, [t for _, t in pairs], "target")
    return [(s, [*t, EOS]) for s, t in zip(sources, targets, strict=True)]


def collate(examples: Sequence[Example]) -> Batch:
    sources = [source for source, _ in examples]
    targets = [target for _, target in examples]
    return Batch(
        pad(sources),
        lengths_of(sources),
        pad([[SOS, *target[:-1]] for target in targets]),
        pad(targets),
    )


class Batches:
    """Batches of similar length, in another order every epoch.

    The order is a function of (seed, epoch) alone, so that training can be taken up again in the
    middle of an epoch.

    Args:
        pool: batches' worth of examples that are drawn at random, sorted by length and cut;
            larger pools pad less, smaller ones mix more.
    """

    def __init__(
        self, examples: Sequence[Example], batch_size: int, *, seed: int = 0, pool: int = 50
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if not examples:
            raise ValueError("examples: expected at least one")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.pool = pool * batch_size

    def __len__(self) -> int:
        full, rest = divmod(len(self.examples), self.pool)
        per_pool = -(-self.pool // self.batch_size)
        return full * per_pool + -(-rest // self.batch_size)

    def indices(self, epoch: int) -> list[list[int]]:
        """Which examples make up each batch of this epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.examples), generator=generator).tolist()
        batches = []
        for start in range(0, len(order), self.pool):
            pool = sorted(order[start : start + self.pool], key=self._length)
            batches += [
                pool[at : at + self.batch_size] for at in range(0, len(pool), self.batch_size)
            ]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]

    def _length(self, index: int) -> tuple[int, int]:
        source, target = self.examples[index]
        return len(target), len(source)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on."""
        for indices in self.indices(epoch)[start:]:
            yield collate([self.examples[i] for i in indices])
