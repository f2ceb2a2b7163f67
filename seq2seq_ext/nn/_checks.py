# SPDX-License-Identifier: MIT
"""Argument checks of the modules: each error names the argument, what was expected, what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CELLS = ("lstm", "gru", "rnn")


def check_choice(where: str, name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{where}: {name} must be one of {', '.join(choices)}; got {value!r}")


def check_size(where: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} must be an int, got {type(value).__name__}")
    if value <= 0:
        raise ValueError(f"{where}: {name} must be greater than zero, got {value}")


def check_proj_size(where: str, value: object, cell: str, hidden_size: int) -> None:
    """proj_size: 0: none; for an LSTM below hidden_size, as torch.nn has it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: proj_size must be an int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{where}: proj_size must be at least 0, got {value}")
    if value > 0 and cell != "lstm":
        raise ValueError(f"{where}: proj_size is for cell 'lstm', got {value} with {cell!r}")
    if value >= hidden_size:
        raise ValueError(
            f"{where}: proj_size must be smaller than hidden_size ({hidden_size}), got {value}"
        )


def check_probability(where: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where}: {name} must be a number, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{where}: {name} must lie in [0, 1], got {value}")


def check_token_id(where: str, name: str, value: object, vocab_size: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} must be an int, got {type(value).__name__}")
    if not 0 <= value < vocab_size:
        raise ValueError(f"{where}: {name} must lie in [0, {vocab_size}), got {value}")


def check_tokens(where: str, name: str, tokens: object, dim: int, embedding: nn.Embedding) -> None:
    """Checks token ids for an embedding; their range only on the CPU: elsewhere it would wait."""
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"{where}: {name} must be a tensor of token ids, got {type(tokens).__name__}"
        )
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{where}: {name} must be int64 or int32, got {tokens.dtype}")
    if tokens.dim() != dim:
        raise ValueError(
            f"{where}: {name} must have {dim} dimensions, got {tokens.dim()} {tuple(tokens.shape)}"
        )
    if tokens.device != embedding.weight.device:
        raise ValueError(
            f"{where}: {name} must be on the model's device {embedding.weight.device}, "
            f"got {tokens.device}"
        )
    vocab_size = embedding.num_embeddings
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or tokens.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(tokens))
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        raise IndexError(f"{where}: {name} must hold ids in [0, {vocab_size}), got {bad}")


def as_lengths(where: str, name: str, lengths: object, batch: int, device: torch.device) -> Tensor:
    """(B,) int64 on `device`, from a tensor or a sequence of ints. Values are checked by the op."""
    if not isinstance(lengths, Tensor):
        if not isinstance(lengths, Sequence) or not all(isinstance(n, int) for n in lengths):
            raise TypeError(
                f"{where}: {name} must be a tensor or a sequence of ints, "
                f"got {type(lengths).__name__}"
            )
        lengths = torch.tensor(lengths, dtype=torch.int64)
    if lengths.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{where}: {name} must be int64 or int32, got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(
            f"{where}: {name} must have shape ({batch},), one length for each row, "
            f"got {tuple(lengths.shape)}"
        )
    return lengths.to(device=device, dtype=torch.int64)
