# SPDX-License-Identifier: MIT
"""Random numbers that are a function of (seed, row, step, token): Philox-4x32-10.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). Nothing is
drawn from a stream, so a draw depends neither on the batch nor on the order of work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq_ext.generation import exact

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(seed: int, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words of 32 bits for each counter.

    Args:
        seed: 0 <= seed < 2**64, the key.
        counter: four int64 tensors of values under 2**32, of shapes that broadcast.
    """
    key = [seed & _MASK, seed >> 32]
    a, b, c, d = counter
    for _ in range(_ROUNDS):
        # The products wrap around in int64; that leaves their 64 bits as they should be.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((right >> 32) & _MASK) ^ b ^ key[0],
            right & _MASK,
            ((left >> 32) & _MASK) ^ d ^ key[1],
            left & _MASK,
        )
        key = [(k + w) & _MASK for k, w in zip(key, _WEYL, strict=True)]
    return a, b, c, d


def uniform(seed: int, rows: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Numbers in (0, 1), both ends excluded: (N, C) float64.

    They are keyed as in the kernels (csrc/kernels/common/philox.h): token 32 i + 8 slot + lane takes
    word `slot` of counter (8 i + lane, step, row).

    Args:
        rows: (N,) int64, 0 <= row < 2**63; its halves are two words of the counter.
        step: 0 <= step < 2**32.
        tokens: (N, C) int64 vocabulary ids.
    """
    rows = rows[:, None]
    calls = (tokens >> 5 << 3) + (tokens & 7)
    words = philox(seed, (calls, torch.full_like(rows, step), rows & _MASK, rows >> 32))
    slots = (tokens >> 3) & 3
    word = torch.stack(words, dim=-1).gather(-1, slots[..., None])[..., 0]
    return (word.double() + 0.5) * 2.0**-32


def gumbel(seed: int, rows: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Gumbel noise: the largest of log p + noise is a draw from p. Arguments as for `uniform`."""
    return -exact.log(-exact.log(1 - uniform(seed, rows, step, tokens)))
