# SPDX-License-Identifier: MIT
"""Cross entropy of a sequence model: of its logits, or of what its output layer reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq_ext import ops
from seq2seq_ext.nn._checks import check_choice, check_probability


class _Loss(nn.Module):
    """The options that both losses have."""

    def __init__(
        self, *, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_probability(name, "label_smoothing", label_smoothing)
        check_choice(name, "reduction", reduction, ("mean", "sum", "none"))
        self.ignore_index, self.reduction = ignore_index, reduction
        self.label_smoothing = float(label_smoothing)

    def extra_repr(self) -> str:
        return (
            f"ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}, "
            f"reduction={self.reduction!r}"
        )


class CrossEntropy(_Loss):
    """-log P(target) with label smoothing, over all positions whose target is not ignore_index.

    As `torch.nn.CrossEntropyLoss`, except: the classes stand last, the mean over no target at all
    is 0 (with zero gradients) and not NaN, and 16-bit logits are summed in float32.

    Args:
        ignore_index: targets with this value count for nothing (the padding token).
        label_smoothing: share of the probability spread evenly over the vocabulary, 0 to 1.
        reduction: "mean" over the targets counted, "sum", or "none".

    Shapes: logits (..., V), target (...) int64 -> (), or (...) for "none".

    Raises ValueError, TypeError: shapes that do not fit, argument out of range. IndexError: a
    target out of 0..V-1.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[:-1] != target.shape:
            raise ValueError(
                "CrossEntropy: target must have the shape of logits without the last dimension, "
                f"{tuple(logits.shape[:-1])}, got {tuple(target.shape)}"
            )
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        loss = F.cross_entropy(
            logits.reshape(-1, logits.size(-1)),
            target.reshape(-1),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none" if self.reduction == "none" else "sum",
        )
        if self.reduction == "none":
            return loss.view(target.shape)
        if self.reduction == "sum":
            return loss
        return loss / (target != self.ignore_index).sum().clamp(min=1)


class LinearCrossEntropy(_Loss):
    """`CrossEntropy` of the logits ``features @ weight.T + bias``, which are not kept in memory
    (`ops.linear_cross_entropy`). Weight and bias are the output layer's; it has none of its own.

    Args: as for `CrossEntropy`.

    Shapes: features (..., H), weight (V, H), target (...) int64, bias (V) or None -> () float32
    (float64 for float64), or (...) for "none".

    Raises ValueError, TypeError, IndexError: as `CrossEntropy`.
    """

    def forward(
        self, features: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        return ops.linear_cross_entropy(
            features,
            weight,
            target,
            bias,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )
