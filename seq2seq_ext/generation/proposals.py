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
        # How many tokens these keep from a row is not known.
        self.needs_all = (
            config.output_scores
            or config.repetition_penalty < 1
            or constraints.allowed is not None
            or not predictor.has_top
        )

    def __call__(
        self, prediction: Prediction, step: int, history: Tensor, count: int
    ) -> Candidates:
        """The best `count` tokens, or all if there are fewer, of each row.

        history: (N, step) the tokens so far; (N, 0) unless needs_history.
        """
        whole = self.needs_all or step < self.constraints.prefix_size
        banned = self.banned_early if step < self.config.min_new_tokens else self.banned
        if whole:
            log_probs = self.predictor.all(prediction)
            ids = torch.arange(log_probs.size(1), device=log_probs.device)
            tokens = ids.expand_as(log_probs)
        else:  # as many more as may fall out or behind
            k = min(count + len(banned) + self._affected(step), self.predictor.size)
            log_probs, tokens = self.predictor.top(prediction, k)
        found = Candidates(tokens, log_probs, log_probs)
        if self.config.repetition_penalty != 1:
            found = self._penalized(prediction, found, history)
        if whole or self.needs_history:
            out = self.bans(prediction.sources, step, history, banned)
            out = out if whole else out.gather(1, found.tokens)
        elif len(banned):
            out = torch.isin(tokens, banned)
        else:  # nothing has changed the order
            return found
        scores = found.scores.masked_fill(out, -math.inf)
        if count == 1:
            order = scores.argmax(1, keepdim=True)  # the first of equals
        else:
            order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return Candidates(*(x.gather(1, order) for x in (found.tokens, scores, found.log_probs)))

    def _affected(self, step: int) -> int:
        """At most so many tokens a row does its history ban, or put behind others."""
        config = self.config
        repeated = config.no_repeat_ngram_size or config.repetition_penalty > 1
        return (step if repeated else 0) + sum(len(phrases) for phrases in self.phrases)

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

    def _penalized(self, prediction: Prediction, found: Candidates, history: Tensor) -> Candidates:
        """With the scores after the repetition penalty, by ascending id: of equals the lowest is
        the first."""
        order = found.tokens.argsort(dim=1)
        tokens, log_probs = found.tokens.gather(1, order), found.log_probs.gather(1, order)
        partition = self.predictor.log_partition(prediction, log_probs, tokens)
        seen = processors.seen_tokens(history, self.predictor.vocab_size).gather(1, tokens)
        logits, penalty = log_probs.double() + partition, self.config.repetition_penalty
        scores = processors.penalize_repetition(logits, seen, penalty) - partition
        return Candidates(
            tokens, torch.where(seen, scores.to(log_probs.dtype), log_probs), log_probs
        )


def _phrases(config: GenerationConfig, device: torch.device) -> list[Tensor]:
    """The bad words of two tokens and more, those of one length in one tensor (W, n)."""
    by_length: dict[int, list[list[int]]] = {}
    for word in config.bad_words_ids or ():
        if len(word) > 1:
            by_length.setdefault(len(word), []).append(list(word))
    return [torch.tensor(words, device=device) for words in by_length.values()]
