# SPDX-License-Identifier: MIT
"""Pairs of torch.nn's modules and ours, and how their results are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seq2seq_ext import nn as snn

LAYERS = [(nn.LSTM, snn.LSTM), (nn.GRU, snn.GRU), (nn.RNN, snn.RNN)]
CELLS = [(nn.LSTMCell, snn.LSTMCell), (nn.GRUCell, snn.GRUCell), (nn.RNNCell, snn.RNNCell)]
OURS = dict(LAYERS + CELLS)


def class_name(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else None


LAYER_PAIRS = pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
CELL_PAIRS = pytest.mark.parametrize(("theirs", "ours"), CELLS, ids=class_name)
ALL_PAIRS = pytest.mark.parametrize(("theirs", "ours"), LAYERS + CELLS, ids=class_name)

VARIANTS = [
    {},
    {"num_layers": 3},
    {"bias": False, "num_layers": 2},
    {"bidirectional": True, "num_layers": 2},
    {"batch_first": True, "bidirectional": True},
]


def tensors(value: Any) -> list[Tensor]:
    """All floating tensors in a module's result, in order."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors(part)]


def run(module: nn.Module, *args: Any, wrt: Iterable[Tensor] = (), seed: int = 1, **kwargs: Any):
    """Outputs and the gradients of a random weighting of them, for the parameters and `wrt`."""
    outputs = tensors(module(*args, **kwargs))
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (out.double() * torch.randn(out.shape, generator=generator, dtype=torch.float64)).sum()
        for out in outputs
    )
    wanted = [*module.parameters(), *wrt]
    return [out.detach() for out in outputs], list(torch.autograd.grad(loss, wanted))


def twins(torchs: type, *args: Any, **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    """torch.nn's module and ours, with the same weights."""
    theirs = torchs(*args, **kwargs)
    ours = OURS[torchs](*args, **kwargs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours
