# SPDX-License-Identifier: MIT
"""What the steps chose, with a pointer from each choice to the row it continues."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """One step of b sources with K rows each."""

    tokens: Tensor  # (b, K) int64
    log_probs: Tensor  # (b, K): the model's
    parents: Tensor | None  # (b, K) int64: the row of before that goes on; None: each its own


class Hypotheses(NamedTuple):
    """n of each source. Those of beam search carry their last token, for it may have taken them out
    of the beams."""

    lengths: Tensor  # (B, n) int64
    rows: Tensor  # (B, n) int64: the row that the last token continues
    tokens: Tensor | None = None  # (B, n) int64: the last
    log_probs: Tensor | None = None  # (B, n): of the last
    scores: Tensor | None = None  # (B, n) float64: rank; -inf: there is no such hypothesis


class Trace:
    """Steps in order; sources that are done take no part in later ones."""

    def __init__(self, batch: int, beams: int) -> None:
        self.batch, self.beams = batch, beams
        self.sources: list[Tensor] = []  # (b,) of each step
        self.choices: list[Choice] = []
        self.extras: list[dict[str, Tensor]] = []

    def add(self, sources: Tensor, choice: Choice, extras: dict[str, Tensor]) -> None:
        """extras: (b * K, ...) what else is wanted of each row, before its choice."""
        self.sources.append(sources)
        self.choices.append(choice)
        self.extras.append(extras)

    def follow(self, found: Hypotheses) -> dict[str, Tensor]:
        """Each hypothesis from its beginning to its end.

        Returns (B, n, T, ...) "tokens", "log_probs" and the extras, T the longest hypothesis, zero
        past each length.
        """
        longest = int(found.lengths.max()) if found.lengths.numel() else 0
        before, after = self._rows(found)
        values = {
            "tokens": self._join([choice.tokens for choice in self.choices], after),
            "log_probs": self._join([choice.log_probs for choice in self.choices], after),
        }
        for name in self.extras[0]:
            parts = [extra[name].unflatten(0, (-1, self.beams)) for extra in self.extras]
            values[name] = self._join(parts, before)
        steps = torch.arange(len(self.choices), device=found.lengths.device)
        if found.tokens is not None and found.log_probs is not None:
            last = found.lengths[..., None] == steps + 1
            own = {"tokens": found.tokens, "log_probs": found.log_probs}
            for name, value in own.items():
                value = value[..., None].to(values[name].dtype)
                values[name] = torch.where(last, value, values[name])
        inside = steps[:longest] < found.lengths[..., None]
        out = {}
        for name, value in values.items():
            mask = inside.view(*inside.shape, *[1] * (value.dim() - 3))
            out[name] = torch.where(mask, value[:, :, :longest], 0)
        return out

    def _rows(self, found: Hypotheses) -> tuple[Tensor | None, Tensor | None]:
        """Where each hypothesis stood before and after each step's choice: (T, B, n); None: all
        rows stay where they are."""
        if self.choices[0].parents is None:
            return None, None
        parents = self._whole([c.parents for c in self.choices if c.parents is not None])
        before, after = [], []
        rows = found.rows
        for t in range(len(self.choices) - 1, -1, -1):
            after.append(rows)
            inside = found.lengths > t + 1  # the last token's row is known already
            rows = torch.where(inside, parents[t].gather(1, rows), rows)
            before.append(rows)
        return torch.stack(before[::-1]), torch.stack(after[::-1])

    def _join(self, parts: list[Tensor], rows: Tensor | None) -> Tensor:
        """(B, n, T, ...) from each step's (b, K, ...)."""
        whole = self._whole(parts)
        if rows is not None:
            index = rows.view(*rows.shape, *[1] * (whole.dim() - 3))
            whole = whole.gather(2, index.expand(*rows.shape, *whole.shape[3:]))
        return whole.movedim(0, 2)

    def _whole(self, parts: list[Tensor]) -> Tensor:
        """(T, B, K, ...), zero where a source took no part."""
        if len(self.sources[-1]) == self.batch:
            return torch.stack(parts)
        out = parts[0].new_zeros(len(parts), *parts[0].shape)
        start = 0
        while start < len(parts):  # consecutive steps of the same sources at once
            sources, end = self.sources[start], start + 1
            while end < len(parts) and self.sources[end] is sources:
                end += 1
            out[start:end, sources] = torch.stack(parts[start:end])
            start = end
        return out
