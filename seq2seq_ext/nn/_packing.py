# SPDX-License-Identifier: MIT
"""Between the data of a PackedSequence (N, F) and a padded tensor (T, B, F), rows in packed order.

torch's own two functions are the fastest, but their results' shapes depend on values, and Dynamo
cannot trace them: under torch.compile the same is said by indices.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pad_packed(data: Tensor, batch_sizes: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """x (T, B, F), zero past each row's end, and lengths (B,) on the CPU, descending."""
    steps = batch_sizes.size(0)
    if not torch.compiler.is_compiling():
        x, lengths = torch._VF._pad_packed_sequence(data, batch_sizes, False, 0.0, steps)
        return x, lengths
    lengths = (torch.arange(batch) < batch_sizes[:, None]).sum(0)
    positions = _positions(batch_sizes, batch, data)
    x = data.new_zeros(steps * batch, data.size(1)).index_copy(0, positions, data)
    return x.view(steps, batch, data.size(1)), lengths


def pack_padded(y: Tensor, lengths: Tensor, batch_sizes: Tensor, data: Tensor) -> Tensor:
    """The reverse for y (T, B, P): (N, P), N that of `data`."""
    if not torch.compiler.is_compiling():
        packed: Tensor = torch._VF._pack_padded_sequence(y, lengths, False)[0]
        return packed
    return y.flatten(0, 1).index_select(0, _positions(batch_sizes, y.size(1), data))


def _positions(batch_sizes: Tensor, batch: int, data: Tensor) -> Tensor:
    """t * B + b of each packed row."""
    steps = torch.arange(batch_sizes.size(0))
    starts = batch_sizes.cumsum(0) - batch_sizes
    t = torch.repeat_interleave(steps, batch_sizes, output_size=data.size(0))
    return (t * batch + torch.arange(data.size(0)) - starts[t]).to(data.device)
