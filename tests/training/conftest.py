# SPDX-License-Identifier: MIT
"""A task small enough to learn in a moment: reverse the words."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seq2seq_ext.data.batching import Example, encode_pairs
from seq2seq_ext.data.corpus import Pair
from seq2seq_ext.data.tokenizer import Tokenizer
from seq2seq_ext.training.config import ModelConfig
from seq2seq_ext.training.translator import Translator


def reversal_pairs(count: int, seed: int = 0) -> list[Pair]:
    rng = random.Random(seed)
    pairs = {}
    while len(pairs) < count:
        words = [rng.choice("abcdef") for _ in range(rng.randint(1, 4))]
        pairs[" ".join(words)] = " ".join(reversed(words))
    return list(pairs.items())


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    return reversal_pairs(200)


@pytest.fixture
def make_translator(pairs: list[Pair]) -> Callable[..., Translator]:
    def make(**options: Any) -> Translator:
        source = Tokenizer.train("word", (s for s, _ in pairs))
        target = Tokenizer.train("word", (t for _, t in pairs))
        torch.manual_seed(1)
        config = ModelConfig(**{"hidden_size": 16, "embedding_size": 8, "dropout": 0.1, **options})
        return Translator.build(config, source, target, max_new_tokens=8)

    return make


@pytest.fixture
def examples(pairs: list[Pair], make_translator: Callable[..., Translator]) -> list[Example]:
    translator = make_translator()
    return encode_pairs(translator.source, translator.target, pairs)
