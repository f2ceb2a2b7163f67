# SPDX-License-Identifier: MIT
"""Random numbers that are a function of what they are for, so that a draw depends neither on the
batch nor on the order of work. 32-bit words lie in int64 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def philox(key: Sequence[Tensor], counter: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Four random words of each counter, by Philox-4x32-10.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).

    Args:
        key: two words.
        counter: four words. All broadcast.
    """
    key0, key1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        # The products wrap around; their 64 bits are as they should be.
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((b >> 32) & _LOW) ^ c1 ^ key0,
            b & _LOW,
            ((a >> 32) & _LOW) ^ c3 ^ key1,
            a & _LOW,
        )
        key0, key1 = (key0 + 0x9E3779B9) & _LOW, (key1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def gumbel(seed: Tensor, step: Tensor, rows: Tensor, words: int, dtype: torch.dtype) -> Tensor:
    """Gumbel noise (B, V) of words 0 .. V-1: -log(-log(1 - v)) of v = (x + 1/2) 2^-32, x 32 random
    bits.

    Words 32 i + 8 slot + lane take number `slot` of the counter (8 i + lane, step, row), as in
    csrc/kernels/common/philox.h.
    """
    blocks = (words + 31) // 32
    seed, step, row = seed.reshape(()), step.reshape(()), rows[:, None]
    calls = torch.arange(blocks * 8, device=rows.device)
    numbers = philox(
        (seed & _LOW, (seed >> 32) & _LOW),
        (calls, step & _LOW, row & _LOW, (row >> 32) & _LOW),
    )
    by_word = torch.stack([n.view(-1, blocks, 8) for n in numbers], dim=2)
    bits = by_word.reshape(-1, blocks * 32)[:, :words]
    v = bits.to(dtype) * 2.0**-32 + 2.0**-33
    if dtype == torch.float32:
        v = v.clamp(max=1 - 2.0**-24)  # below 1
    return -torch.log(-torch.log1p(-v))
