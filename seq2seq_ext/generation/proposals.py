# SPDX-License-Identifier: MIT
"""The tokens that each row may take next, best first, after bans and penalties."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq_ext.generation import processors
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.constraints import Constraints
from seq2seq_ext.generation.predictor import Prediction, Predictor


class Candidates(NamedTuple):
    """C tokens of N rows, by descending score; of equals the lowest id first. A row whose logits
    hold a NaN or an infinity has log-probabilities NaN."""

    tokens: Tensor  # (N, C) int64
    scores: Tensor  # (N, C): log-probability less penalties; -inf: not to be chosen
    log_probs: Tensor  # (N, C): the model's


class Proposals:
    """Asks the predictor for no more than the options need."""

    def __init__(
        self, predictor: Predictor, config: GenerationConfig, constraints: Constraints
    ) -> None:
        self.predictor, self.config, self.constraints = predictor, config, constraints
        device = predictor.device
        banned = set(config.banned_token_ids)
        self.banned = torch.tensor(sorted(banned), dtype=torch.int64, device=device)
        banned |= set(config.eos_token_ids)
        self.banned_early = torch.tensor(sorted(banned), dtype=torch.int64, device=device)
        self.phrases = _phrases(config, device)
        self.needs_history = bool(
            self.phrases or config.no_repeat_ngram_size or config.repetition_penalty != 1
        )
        # What these do to a row's order is not known before all of its scores are.
        self.whole_rows = (
            self.needs_history
            or config.output_scores
            or constraints.allowed is not None
            or not predictor.has_top
        )

    def __call__(
        self, prediction: Prediction, step: int, history: Tensor, count: int
    ) -> Candidates:
        """The best `count` tokens, or all if there are fewer, of each row.

        history: (N, step) the tokens so far; (N, 0) unless needs_history.
        """
        early = step < self.config.min_new_tokens
        banned = self.banned_early if early else self.banned
        if self.whole_rows or step < self.constraints.prefix_size:
            return self._of_all(prediction, step, history, banned, count)
        return self._of_top(prediction, banned, count)

    def _of_top(self, prediction: Prediction, banned: Tensor, count: int) -> Candidates:
        """As many more are asked for as may be banned."""
        k = min(count + len(banned), self.predictor.size)
        log_probs, tokens = self.predictor.top(prediction, k)
        if len(banned) == 0:
            return Candidates(tokens, log_probs, log_probs)
        out = torch.isin(tokens, banned)
        scores, rank = log_probs.masked_fill(out, -math.inf), out.to(torch.uint8)
        if count == 1:
            order = rank.argmin(1, keepdim=True)
        else:
            order = rank.argsort(dim=1, stable=True)[:, :count]
        return Candidates(
            tokens.gather(1, order), scores.gather(1, order), log_probs.gather(1, order)
        )

    def _of_all(
        self, prediction: Prediction, step: int, history: Tensor, banned: Tensor, count: int
    ) -> Candidates:
        log_probs = self.predictor.all(prediction)
        out = self.bans(prediction.sources, step, history, banned)
        scores = log_probs
        if self.config.repetition_penalty != 1 and history.size(1):
            scores = self._penalize(prediction, log_probs, history)
        scores = scores.masked_fill(out, -math.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return Candidates(order, scores.gather(1, order), log_probs.gather(1, order))

    def bans(self, sources: Tensor, step: int, history: Tensor, banned: Tensor) -> Tensor:
        """(N, V) bool: what each row may not choose at this step. banned: ids of all rows alike."""
        rows, size = history.size(0), self.predictor.vocab_size
        beams = rows // max(len(sources), 1)
        out = torch.zeros(1, size, dtype=torch.bool, device=history.device)
        out = out.index_fill(1, banned, True).expand(rows, -1)
        if self.constraints.allowed is not None:
            allowed = self.constraints.allowed
            if allowed.size(0) > 1:
                allowed = allowed[sources].repeat_interleave(beams, dim=0)
            out = out | ~allowed
        for phrases in self.phrases:
            out = out | processors.completed_phrases(history, phrases, size)
        if self.config.no_repeat_ngram_size:
            ngram = self.config.no_repeat_ngram_size
            out = out | processors.repeated_ngrams(history, ngram, size)
        if step < self.constraints.prefix_size:
            assert self.constraints.prefix is not None
            forced = self.constraints.prefix[sources, step].repeat_interleave(beams)
            out = processors.force(out, forced)
        return out

    def _penalize(self, prediction: Prediction, log_probs: Tensor, history: Tensor) -> Tensor:
        partition = self.predictor.log_partition(prediction, log_probs)
        seen = processors.seen_tokens(history, self.predictor.vocab_size)
        logits = log_probs.double() + partition
        penalty = self.config.repetition_penalty
        penalized = processors.penalize_repetition(logits, seen, penalty) - partition
        return torch.where(seen, penalized.to(log_probs.dtype), log_probs)


def _phrases(config: GenerationConfig, device: torch.device) -> list[Tensor]:
    """The bad words of two tokens and more, those of one length in one tensor (W, n)."""
    by_length: dict[int, list[list[int]]] = {}
    for word in config.bad_words_ids or ():
        if len(word) > 1:
            by_length.setdefault(len(word), []).append(list(word))
    return [torch.tensor(words, device=device) for words in by_length.values()]
