# SPDX-License-Identifier: MIT
"""Batches: padding, every example once an epoch, similar lengths, repeatable order."""

from __future__ import annotations

import random

import pytest
import torch

from seq2seq_ext.data.batching import Batches, collate, encode_pairs
from seq2seq_ext.data.corpus import DataError
from seq2seq_ext.data.tokenizer import EOS, PAD, SOS, Tokenizer


def _examples(count: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(0)
    rows = []
    for i in range(count):
        length = rng.randint(1, 30)
        rows.append(([4 + i] * length, [4 + i] * length + [EOS]))
    return rows


def test_collate() -> None:
    batch = collate([([5, 6], [7, EOS]), ([5], [8, 9, EOS])])
    assert batch.source.tolist() == [[5, 6], [5, PAD]]
    assert batch.source_lengths.tolist() == [2, 1]
    assert batch.target_in.tolist() == [[SOS, 7, PAD], [SOS, 8, 9]]
    assert batch.target_out.tolist() == [[7, EOS, PAD], [8, 9, EOS]]
    assert batch.target_tokens == 5


@pytest.mark.parametrize("count", [1, 7, 64, 333])
def test_every_example_once_an_epoch(count: int) -> None:
    batches = Batches(_examples(count), 8, seed=1, pool=4)
    indices = batches.indices(0)
    assert sorted(i for batch in indices for i in batch) == list(range(count))
    assert len(batches) == len(indices)
    assert all(len(batch) <= 8 for batch in indices)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    examples = _examples(200)
    first = Batches(examples, 8, seed=1)
    before = first.indices(3)
    torch.manual_seed(99)
    assert Batches(examples, 8, seed=1).indices(3) == before
    assert first.indices(4) != before
    assert Batches(examples, 8, seed=2).indices(3) != before


def test_epoch_can_start_in_the_middle() -> None:
    batches = Batches(_examples(100), 8)
    whole = [batch.source for batch in batches.epoch(2)]
    rest = [batch.source for batch in batches.epoch(2, start=5)]
    assert len(rest) == len(whole) - 5
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_similar_lengths_share_a_batch() -> None:
    batches = Batches(_examples(2000), 20)
    padded = sum(batch.target_out.numel() for batch in batches.epoch(0))
    tokens = sum(batch.target_tokens for batch in batches.epoch(0))
    assert padded / tokens < 1.08


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        Batches(_examples(3), 0)
    with pytest.raises(ValueError, match="at least one"):
        Batches([], 4)
    tokenizer = Tokenizer.train("word", ["a"])
    with pytest.raises(DataError, match="source:2: no tokens"):
        encode_pairs(tokenizer, tokenizer, [("a", "a"), ("\u2028", "a")])
