# SPDX-License-Identifier: MIT
"""Noise of candidate tokens, a function of (seed, row, step, token) alone."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq_ext._philox import philox
from seq2seq_ext.generation import exact

_LOW = 0xFFFFFFFF


def uniform(seed: int, rows: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Numbers in (0, 1), both ends excluded: (N, C) float64.

    Keyed as in the kernels (csrc/kernels/common/philox.h): token 32 i + 8 slot + lane takes word
    `slot` of counter (8 i + lane, step, row).

    Args:
        seed: 0 <= seed < 2**64.
        rows: (N,) int64, 0 <= row < 2**63; its halves are two words of the counter.
        step: 0 <= step < 2**32.
        tokens: (N, C) int64 vocabulary ids.
    """
    rows = rows[:, None]
    calls, slots = (tokens >> 5 << 3) + (tokens & 7), (tokens >> 3) & 3
    key = [torch.full_like(rows, word) for word in (seed & _LOW, seed >> 32)]
    words = philox(key, (calls, torch.full_like(rows, step), rows & _LOW, rows >> 32))
    word = torch.stack(words, dim=-1).gather(-1, slots[..., None])[..., 0]
    return (word.double() + 0.5) * 2.0**-32


def gumbel(seed: int, rows: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Gumbel noise: the largest of log p + noise is a draw from p. Arguments as for `uniform`."""
    return -exact.log(-exact.log(1 - uniform(seed, rows, step, tokens)))
