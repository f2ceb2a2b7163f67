# SPDX-License-Identifier: MIT
"""What decoding and scoring return, and what a callback gets at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class GenerateOutput(NamedTuple):
    """What decoding found: R = B * num_return_sequences rows, a source's rows together, the best
    first after beam search. T is the longest row's length; values past a row's length are zero.
    """

    sequences: Tensor  # (R, T) int64: new tokens, end-of-sequence kept, then padding
    lengths: Tensor  # (R,) int64: tokens before the padding, end-of-sequence included
    token_log_probs: Tensor  # (R, T) float32 (float64 for float64 models): the model's
    sequences_scores: Tensor  # (R,): their sums
    normalized_scores: Tensor  # (R,): these over lengths ** length_penalty
    beam_scores: Tensor | None  # num_beams > 1: (R,) float64: by which the hypotheses are ranked
    scores: Tensor | None  # output_scores: (R, T, V) log-probabilities, -inf where banned
    attentions: Tensor | None  # output_attentions: (R, T, S)
    hidden_states: Tensor | None  # output_hidden_states: (R, T, P): s_1 ... s_T
    contexts: Tensor | None  # output_hidden_states: (R, T, C) with attention, (R, C) without


class ScoreOutput(NamedTuple):
    """What the model thinks of given targets. Values past a row's length are zero."""

    lengths: Tensor  # (B,) int64: tokens that count, end-of-sequence included
    token_log_probs: Tensor  # (B, T) float32 (float64 for float64 models)
    sequences_scores: Tensor  # (B,): their sums
    normalized_scores: Tensor  # (B,): these over lengths ** length_penalty
    attentions: Tensor | None  # output_attentions: (B, T, S)


class StepOutput(NamedTuple):
    """One step, as a callback sees it; K beams or samples of each of B sources.

    Beam search: the hypotheses that go on; one that ends leaves them, and is in the result.
    """

    step: int  # from 0
    tokens: Tensor  # (B, K) int64: what each row chose; pad_token_id in rows that are done
    parents: Tensor  # (B, K) int64: the row of the step before that it continues
    log_probs: Tensor  # (B, K): the model's, of these tokens; zero in rows that are done
    done: Tensor  # (B, K) bool: no further token comes


Callback = Callable[[StepOutput], object]


def sum_scores(log_probs: Tensor, lengths: Tensor, length_penalty: float) -> tuple[Tensor, Tensor]:
    """Sums (R,) of log_probs (R, T), zero past each length; these over length**length_penalty."""
    size = log_probs.size(1)
    # A running sum: the same bits however many columns of zeros follow.
    total = (
        log_probs.double().cumsum(1)[:, -1] if size else log_probs.new_zeros(len(lengths)).double()
    )
    norms = [float(length**length_penalty) if length else 1.0 for length in lengths.tolist()]
    normalized = total / torch.tensor(norms, dtype=torch.float64, device=lengths.device)
    return total.to(log_probs.dtype), normalized.to(log_probs.dtype)
