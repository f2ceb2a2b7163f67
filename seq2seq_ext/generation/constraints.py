# SPDX-License-Identifier: MIT
"""What one call adds to the options: tensors of its own batch, checked and brought to one form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seq2seq_ext.generation.config import GenerationConfig

NO_TOKEN = -1
Ids = Tensor | Sequence[int] | Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Constraints:
    """B rows, one for each source.

    Attributes:
        row_ids: (B,) int64: what a row's random numbers are keyed by.
        prefix: (B, P) int64, then NO_TOKEN: what each row must begin with; None: nothing.
        allowed: (1, V) or (B, V) bool: the tokens that may be chosen; None: all.
        shortlist: ascending vocabulary ids (n,), of all rows alike, or a list of B such tensors;
            None: the whole vocabulary.
    """

    row_ids: Tensor
    prefix: Tensor | None = None
    allowed: Tensor | None = None
    shortlist: Tensor | list[Tensor] | None = None

    @property
    def prefix_size(self) -> int:
        return 0 if self.prefix is None else self.prefix.size(1)

    @classmethod
    def of(
        cls,
        batch: int,
        vocab_size: int,
        config: GenerationConfig,
        device: torch.device,
        *,
        prefix_tokens: Ids | None = None,
        allowed_tokens: Tensor | None = None,
        shortlist: Ids | None = None,
        row_ids: Tensor | Sequence[int] | None = None,
    ) -> Constraints:
        """Raises ValueError, TypeError: an argument does not fit the batch or the vocabulary."""
        prefix = None
        if prefix_tokens is not None:
            prefix = _prefix(prefix_tokens, batch, vocab_size, config)
        chosen = None
        if shortlist is not None:
            ends = torch.tensor(config.eos_token_ids, dtype=torch.int64)
            chosen = _shortlist(shortlist, batch, vocab_size, ends, prefix)
        if isinstance(chosen, list):
            chosen = [row.to(device) for row in chosen]
        elif chosen is not None:
            chosen = chosen.to(device)
        allowed = None
        if allowed_tokens is not None:
            allowed = _allowed(allowed_tokens, batch, vocab_size).to(device)
        return cls(
            _row_ids(row_ids, batch).to(device),
            None if prefix is None else prefix.to(device),
            allowed,
            chosen,
        )


def _rows(name: str, value: Any, batch: int, vocab_size: int) -> Tensor:
    """(B, longest) int64, NO_TOKEN behind each row, from a tensor of that form or from lists."""
    if isinstance(value, Tensor):
        if value.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"generate: {name} must be int64 or int32, got {value.dtype}")
        if value.dim() != 2 or value.size(0) != batch:
            raise ValueError(
                f"generate: {name} must have shape ({batch}, n), one row for each source, "
                f"got {tuple(value.shape)}"
            )
        rows = value.cpu().long()
    else:
        rows = _pad(name, value)
        if rows.size(0) != batch:
            raise ValueError(
                f"generate: {name} must hold {batch} rows, one for each source, got {rows.size(0)}"
            )
    _check_ids(name, rows, NO_TOKEN, vocab_size)
    missing = rows == NO_TOKEN
    if bool((missing[:, :-1] & ~missing[:, 1:]).any()):
        row = int((missing[:, :-1] & ~missing[:, 1:]).any(1).nonzero()[0])
        raise ValueError(f"generate: {name} must have its -1 at the end of row {row}")
    longest = int((~missing).sum(1).max()) if rows.numel() else 0
    return rows[:, :longest]


def _pad(name: str, value: Any) -> Tensor:
    ok = isinstance(value, Sequence) and all(isinstance(row, Sequence) for row in value)
    if not ok or not all(type(token) is int for row in value for token in row):
        raise TypeError(
            f"generate: {name} must be a tensor of ids or a list of lists of ids, "
            f"got {type(value).__name__}"
        )
    longest = max(map(len, value), default=0)
    rows = [[*row, *[NO_TOKEN] * (longest - len(row))] for row in value]
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), longest)


def _check_ids(name: str, ids: Tensor, low: int, vocab_size: int) -> None:
    wrong = ids[(ids < low) | (ids >= vocab_size)]
    if wrong.numel():
        raise ValueError(
            f"generate: {name} must hold ids in [0, {vocab_size}), got {int(wrong[0])}"
        )


def _prefix(value: Any, batch: int, vocab_size: int, config: GenerationConfig) -> Tensor | None:
    prefix = _rows("prefix_tokens", value, batch, vocab_size)
    if prefix.size(1) > config.max_new_tokens:
        raise ValueError(
            f"generate: prefix_tokens must be at most max_new_tokens ({config.max_new_tokens}) "
            f"long, got {prefix.size(1)}"
        )
    for token in config.eos_token_ids:
        inside = (prefix[:, :-1] == token) & (prefix[:, 1:] != NO_TOKEN)
        if bool(inside.any()):
            row = int(inside.any(1).nonzero()[0])
            raise ValueError(
                f"generate: prefix_tokens must have no token behind eos_token_id {token}, "
                f"as row {row} has"
            )
    return prefix if prefix.size(1) else None


def _allowed(value: Any, batch: int, vocab_size: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"generate: allowed_tokens must be a tensor, got {type(value).__name__}")
    if value.dtype != torch.bool:
        raise TypeError(f"generate: allowed_tokens must be bool, got {value.dtype}")
    if value.shape not in ((vocab_size,), (batch, vocab_size)):
        raise ValueError(
            f"generate: allowed_tokens must have shape ({vocab_size},) or ({batch}, {vocab_size}), "
            f"got {tuple(value.shape)}"
        )
    value = value.reshape(-1, vocab_size)
    none = ~value.any(1)
    if bool(none.any()):
        raise ValueError(
            f"generate: allowed_tokens leaves no token to choose in row {int(none.nonzero()[0])}"
        )
    return value


def _shortlist(
    value: Any, batch: int, vocab_size: int, ends: Tensor, prefix: Tensor | None
) -> Tensor | list[Tensor]:
    """With the ids that must be there: one tensor for all rows, or one a row."""
    one = isinstance(value, Tensor) and value.dim() == 1
    if not isinstance(value, Tensor) and isinstance(value, Sequence):
        one = len(value) > 0 and all(type(token) is int for token in value)
    if one:
        ids = torch.as_tensor(value)
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"generate: shortlist must be int64 or int32, got {ids.dtype}")
        ids = ids.cpu().long()
        _check_ids("shortlist", ids, 0, vocab_size)
        common = _unique(ids, ends)
        forced = ends[:0] if prefix is None else prefix[prefix != NO_TOKEN]
        if bool(torch.isin(forced, common).all()):
            return common
        rows = [common] * batch  # a row's prefix is no affair of the others
    else:
        lists = _rows("shortlist", value, batch, vocab_size)
        rows = [row[row != NO_TOKEN] for row in lists]
    forced_rows = rows if prefix is None else [row[row != NO_TOKEN] for row in prefix]
    return [_unique(row, own, ends) for row, own in zip(rows, forced_rows, strict=True)]


def _unique(*ids: Tensor) -> Tensor:
    joined = torch.cat(ids).unique()
    if joined.numel() == 0:
        raise ValueError("generate: shortlist must hold at least one id")
    return joined


def _row_ids(value: Any, batch: int) -> Tensor:
    if value is None:
        return torch.arange(batch)
    ids = torch.as_tensor(value)
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"generate: row_ids must be int64 or int32, got {ids.dtype}")
    if ids.shape != (batch,):
        raise ValueError(
            f"generate: row_ids must have shape ({batch},), one for each source, "
            f"got {tuple(ids.shape)}"
        )
    ids = ids.long()
    wrong = ids[(ids < 0) | (ids >= 2**32)]
    if wrong.numel():
        raise ValueError(f"generate: row_ids must lie in [0, 2**32), got {int(wrong[0])}")
    return ids
