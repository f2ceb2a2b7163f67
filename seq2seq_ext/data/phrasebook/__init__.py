# SPDX-License-Identifier: MIT
"""A small English-French corpus, generated from a grammar written for this project.

>>> from seq2seq_ext.data import phrasebook
>>> train, held_out = phrasebook.split()
>>> ("I love you", "Je t'aime") in train
True
"""

from __future__ import annotations

from random import Random

from .grammar import draw_pair

#: Sentences that every corpus holds, in its training part.
ALWAYS = (
    ("I love you", "Je t'aime"),
    ("I love him", "Je l'aime"),
    ("You love me", "Tu m'aimes"),
    ("Do you love me?", "Est-ce que tu m'aimes ?"),
    ("I do not love you", "Je ne t'aime pas"),
    ("I have a friend", "J'ai un ami"),
)

DEFAULT_SIZE = 40_000
DEFAULT_HELD_OUT = 1_000

__all__ = ["ALWAYS", "DEFAULT_HELD_OUT", "DEFAULT_SIZE", "pairs", "split"]


def pairs(size: int = DEFAULT_SIZE, *, seed: int = 0) -> list[tuple[str, str]]:
    """`size` distinct (English, French) pairs, the same for the same seed.

    The first are those of `ALWAYS`. No English sentence occurs twice.

    Raises:
        ValueError: `size` is smaller than the fixed part or larger than the grammar reaches.
    """
    if size < len(ALWAYS):
        raise ValueError(f"size: expected at least {len(ALWAYS)}, got {size}")
    rng = Random(seed)
    found = dict(ALWAYS)
    draws = 0
    while len(found) < size:
        source, target = draw_pair(rng)
        draws += 1
        if draws > 50 * size + 1000:
            raise ValueError(f"size: the grammar yields too few distinct sentences for {size}")
        if found.setdefault(source, target) != target:
            raise AssertionError(f"{source!r} has two translations: {found[source]!r}, {target!r}")
    return list(found.items())


def split(
    size: int = DEFAULT_SIZE, held_out: int = DEFAULT_HELD_OUT, *, seed: int = 0
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(train, held out): no source sentence of one occurs in the other.

    Raises:
        ValueError: `held_out` leaves nothing to train on.
    """
    corpus = pairs(size, seed=seed)
    if not 0 <= held_out < size - len(ALWAYS):
        raise ValueError(f"held_out: expected 0 <= held_out < {size - len(ALWAYS)}, got {held_out}")
    drawn = corpus[len(ALWAYS) :]
    return list(ALWAYS) + drawn[held_out:], drawn[:held_out]
