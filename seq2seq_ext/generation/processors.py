# SPDX-License-Identifier: MIT
"""What options do to the next token's scores: pure functions, in the order in which they apply.

The order, and what each option means, is written down in :mod:`seq2seq_ext.generation`.

Legend: N rows, V vocabulary, C candidates, t tokens so far, W phrases.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seq2seq_ext.generation import exact

# --------------------------------------------------------------------------------------------------
# Bans: which tokens a row may not choose. history (N, t): each row's tokens so far.


def seen_tokens(history: Tensor, vocab_size: int) -> Tensor:
    """(N, V) bool: the tokens that occur in a row's history."""
    return _mark(history, torch.ones_like(history, dtype=torch.bool), vocab_size)


def repeated_ngrams(history: Tensor, size: int, vocab_size: int) -> Tensor:
    """(N, V) bool: the tokens that would complete an n-gram which the history holds already."""
    if history.size(1) < size:
        return history.new_zeros(history.size(0), vocab_size, dtype=torch.bool)
    ngrams = history.unfold(1, size, 1)  # (N, t - size + 1, size)
    tail = history[:, None, history.size(1) - size + 1 :]
    return _mark(ngrams[..., -1], (ngrams[..., :-1] == tail).all(-1), vocab_size)


def completed_phrases(history: Tensor, phrases: Tensor, vocab_size: int) -> Tensor:
    """(N, V) bool: the tokens that would complete one of the phrases (W, n), n >= 2."""
    before = phrases.size(1) - 1
    if history.size(1) < before:
        return history.new_zeros(history.size(0), vocab_size, dtype=torch.bool)
    tail = history[:, None, history.size(1) - before :]
    begun = (tail == phrases[:, :-1]).all(-1)  # (N, W)
    return _mark(phrases[:, -1].expand_as(begun), begun, vocab_size)


def is_one_of(tokens: Tensor, ids: Tensor) -> Tensor:
    """bool, of the tokens' shape. ids: (n,) int64."""
    return tokens == ids if len(ids) == 1 else torch.isin(tokens, ids)


def _mark(tokens: Tensor, which: Tensor, vocab_size: int) -> Tensor:
    """(N, V) bool from tokens (N, M) and which of them count; a token may occur several times."""
    marks = tokens.new_zeros(tokens.size(0), vocab_size, dtype=torch.uint8)
    return marks.scatter_reduce_(1, tokens, which.to(torch.uint8), "amax").bool()


def force(banned: Tensor, forced: Tensor) -> Tensor:
    """(N, V) bool: nothing but forced (N,) is allowed, and that always; -1 forces nothing."""
    others = torch.arange(banned.size(1), device=banned.device) != forced[:, None]
    return torch.where(forced[:, None] >= 0, others, banned)


# --------------------------------------------------------------------------------------------------
# Scores.


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (N, V) with those of seen tokens divided by the penalty where they are positive, else
    multiplied by it (Keskar et al. 2019)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def truncate(scores: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Sampling's candidates: -inf where a token is left out, else the score.

    Args:
        scores: (N, C) float64 log-probabilities up to a constant of the row, descending; -inf:
            banned.
        top_k: the first so many stay; 0: all.
        top_p: of these the first stay whose probabilities add up to top_p at least, among the
            top_k; one always stays (Holtzman et al. 2020).
        min_p: of these those stay that are at least min_p times as probable as the first (Nguyen et
            al. 2024).
    """
    if 0 < top_k < scores.size(1):
        scores = scores.index_fill(
            1, torch.arange(top_k, scores.size(1)).to(scores.device), -math.inf
        )
    below = scores - scores[:, :1]
    if top_p < 1:
        mass = torch.nan_to_num(exact.exp(below)).cumsum(1)  # one term after the other
        before = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], dim=1)
        first = torch.arange(scores.size(1), device=scores.device) == 0
        scores = scores.masked_fill((before >= top_p * mass[:, -1:]) & ~first, -math.inf)
    if min_p > 0:
        scores = scores.masked_fill(below < math.log(min_p), -math.inf)
    return scores


def pick_largest(scores: Tensor, tokens: Tensor) -> Tensor:
    """(N, 1) index of the largest score (N, C); of equals, that of the lowest token id."""
    best = scores == scores.amax(1, keepdim=True)
    last = torch.iinfo(tokens.dtype).max
    return torch.where(best, tokens, last).argmin(1, keepdim=True)
