# SPDX-License-Identifier: MIT
"""Attention of a decoder state over the encoder's outputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq_ext import ops
from seq2seq_ext.nn._checks import as_lengths, check_choice, check_size
from seq2seq_ext.nn._linear import apply_linear

ATTENTION_KINDS = ("dot", "scaled_dot", "general", "additive")


class AttentionMemory(NamedTuple):
    """What stays the same over all steps of a sentence; made once by `Attention.prepare`."""

    keys: Tensor  # (B, S, A)
    values: Tensor  # (B, S, C)
    lengths: Tensor | None  # (B,) int64

    def index_select(self, rows: Tensor) -> AttentionMemory:
        lengths = None if self.lengths is None else self.lengths[rows]
        return AttentionMemory(self.keys[rows], self.values[rows], lengths)


class Attention(nn.Module):
    """context = sum_s softmax_s(score(query, memory_s)) memory_s.

    | kind         | score(q, m)          | source                |
    |--------------|----------------------|-----------------------|
    | "dot"        | q . m                | Luong et al. 2015     |
    | "scaled_dot" | q . m / sqrt(size)   | Vaswani et al. 2017   |
    | "general"    | q . W m              | Luong et al. 2015     |
    | "additive"   | v . tanh(W q + U m + b) | Bahdanau et al. 2015 |

    Args:
        query_size: features of the query (the decoder's hidden size).
        memory_size: features of the memory, and of the context (the encoder's output size). "dot"
            and "scaled_dot" have no weights and need memory_size == query_size.
        kind: one of the above.
        attention_size: size of the additive hidden layer; None: query_size. Other kinds take none.

    Raises ValueError, TypeError: unknown kind, sizes that do not fit.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        kind: str = "dot",
        *,
        attention_size: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_size("Attention", "query_size", query_size)
        check_size("Attention", "memory_size", memory_size)
        check_choice("Attention", "kind", kind, ATTENTION_KINDS)
        if kind in ("dot", "scaled_dot") and query_size != memory_size:
            raise ValueError(
                f"Attention: kind {kind!r} needs query_size == memory_size, got {query_size} and "
                f"{memory_size}; 'general' and 'additive' take any sizes"
            )
        if attention_size is not None:
            check_size("Attention", "attention_size", attention_size)
            if kind != "additive":
                raise ValueError(f"Attention: attention_size is for kind 'additive', not {kind!r}")
        self.query_size, self.memory_size, self.kind = query_size, memory_size, kind
        self.attention_size = attention_size or query_size
        self.scale = 1 / math.sqrt(query_size) if kind == "scaled_dot" else 1.0
        self.key: nn.Linear | None = None
        self.query: nn.Linear | None = None
        factory = {"device": device, "dtype": dtype}
        if kind == "general":
            self.key = nn.Linear(memory_size, query_size, bias=False, **factory)
        elif kind == "additive":
            self.key = nn.Linear(memory_size, self.attention_size, **factory)
            self.query = nn.Linear(query_size, self.attention_size, bias=False, **factory)
            self.v = nn.Parameter(torch.empty(self.attention_size, **factory))
            bound = 1 / math.sqrt(self.attention_size)
            nn.init.uniform_(self.v, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.query_size}, {self.memory_size}, kind={self.kind!r}"

    def prepare(
        self, memory: Tensor, lengths: Tensor | None = None, *, invariant: bool = False
    ) -> AttentionMemory:
        """Projects the keys, once per sentence.

        Args:
            memory: (B, S, memory_size).
            lengths: (B,) valid positions of each row; None: all S.
            invariant: keep each row's bits independent of its batch (slower; decoding asks for it).
        """
        if memory.dim() != 3 or memory.size(-1) != self.memory_size:
            raise ValueError(
                f"Attention: memory must be (B, S, {self.memory_size}), got {tuple(memory.shape)}"
            )
        if lengths is not None:
            lengths = as_lengths("Attention", "lengths", lengths, memory.size(0), memory.device)
        keys = memory if self.key is None else apply_linear(self.key, memory, invariant=invariant)
        return AttentionMemory(keys, memory, lengths)

    def forward(self, query: Tensor, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        """
        Args:
            query: (B, query_size), one step, or (B, T, query_size), all steps of teacher forcing at
                once.
            memory: from `prepare`.

        Returns:
            context (B, memory_size) and weights (B, S); with T: (B, T, memory_size) and (B, T, S).
            Weights are zero past a row's length; a row of length 0 has zero context.
        """
        if query.dim() not in (2, 3) or query.size(-1) != self.query_size:
            raise ValueError(
                f"Attention: query must be (B, {self.query_size}) or (B, T, {self.query_size}), "
                f"got {tuple(query.shape)}"
            )
        if query.dim() == 3:
            return self._all_steps(query, memory)
        return ops.attention_step(
            query,
            memory.keys,
            memory.values,
            lengths=memory.lengths,
            score="additive" if self.kind == "additive" else "dot",
            scale=self.scale,
            w_query=None if self.query is None else self.query.weight,
            v=self.v if self.kind == "additive" else None,
        )

    def _all_steps(self, query: Tensor, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        keys, values = memory.keys, memory.values
        if self.query is not None:  # additive; (B, T, S, A) is written out
            hidden = torch.tanh(self.query(query)[:, :, None] + keys[:, None])
            scores = hidden @ self.v.to(hidden.dtype)
        else:
            scores = torch.bmm(query, keys.transpose(1, 2)) * self.scale
        if memory.lengths is None:
            weights = torch.softmax(scores, dim=-1)
        else:
            mask = torch.arange(keys.size(1), device=keys.device) < memory.lengths[:, None, None]
            # Filled twice: a row of length 0 is NaN after the softmax, and gets no gradient either.
            weights = torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
            weights = weights.masked_fill(~mask, 0)
        return torch.bmm(weights.to(values.dtype), values), weights
