# SPDX-License-Identifier: MIT
"""A linear map whose rows do not feel the batch around them.

A BLAS picks its blocking from the shape, so the same row may come out with other bits in another
batch. Decoding promises a sentence the same bits alone and in any batch (design:
"batch-invariant"). The step, attention and vocabulary kernels keep that promise themselves; the few
products done once per sentence (keys, bridge) go through here. On the CPU a kernel of the same kind
does them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq_ext import _backend

_BLOCK = 16


def apply_linear(
    linear: nn.Linear, x: Tensor, *, tanh: bool = False, invariant: bool = False
) -> Tensor:
    """`linear(x)`, or its tanh, for x (B, K) or (B, S, K).

    invariant: each sentence by itself and in products of one fixed shape, with fresh, aligned
    operands. The tanh goes along: torch computes the last elements of a tensor by another routine.
    """
    if not invariant or x.size(0) == 0:
        y = linear(x)
        return torch.tanh(y) if tanh else y
    if _has_kernel(linear, x):
        rows = torch.ops.seq2seq_ext.linear_rows(x.flatten(0, -2), linear.weight, linear.bias, tanh)
        return rows.view(*x.shape[:-1], -1)
    if x.dim() == 2:
        return torch.cat([_apply_block(linear, row, tanh) for row in x.split(1)])
    size, features = x.shape[1:]
    padded = F.pad(x, (0, 0, 0, -size % _BLOCK))
    blocks = padded.reshape(-1, _BLOCK, features)
    y = torch.stack([_apply_block(linear, block, tanh) for block in blocks])
    return y.view(x.size(0), -1, y.size(-1))[:, :size]


def _has_kernel(linear: nn.Linear, x: Tensor) -> bool:
    return (
        type(linear) is nn.Linear
        and x.is_cpu
        and x.dtype == linear.weight.dtype
        and x.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _backend.available("cpu")
    )


def _apply_block(linear: nn.Linear, block: Tensor, tanh: bool) -> Tensor:
    y = linear(block.clone())
    return torch.tanh(y) if tanh else y


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean of x (B, S, C) over each row's first lengths[b] positions, (B, C); 0 for length 0."""
    mask = torch.arange(x.size(1), device=x.device) < lengths[:, None]
    total = torch.where(mask[..., None], x, 0).sum(1)
    return total / lengths.clamp(min=1)[:, None].to(x.dtype)
