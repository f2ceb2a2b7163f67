# SPDX-License-Identifier: MIT
"""Greedy decoding and sampling: each row goes its own way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seq2seq_ext.generation import philox, processors
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.proposals import Candidates
from seq2seq_ext.generation.trace import Choice, Hypotheses


class Picking:
    """K rows of each source: so many samples, or the one row of greedy decoding. Tensors are those
    of the b sources at work, until `keep` drops some.

    Args:
        row_ids: (B,) int64; with the number of the sample they key a row's draws.
    """

    def __init__(self, config: GenerationConfig, row_ids: Tensor) -> None:
        self.config, self.samples = config, config.num_return_sequences
        batch, device = len(row_ids), row_ids.device
        self.eos = torch.tensor(config.eos_token_ids, dtype=torch.int64, device=device)
        self.sources = torch.arange(batch, device=device)
        self.done = torch.zeros(batch, self.samples, dtype=torch.bool, device=device)
        self.lengths = torch.zeros_like(self.done, dtype=torch.int64)
        self.found = self.lengths.clone()  # (B, K) lengths
        if config.do_sample:
            self.row_ids = row_ids[:, None] + (torch.arange(self.samples, device=device) << 32)
            # The default generator is asked once: draws are then keyed, not taken in turn.
            drawn = int(torch.empty((), dtype=torch.int64).random_())
            self.seed = drawn if config.seed is None else config.seed

    def count(self, vocab_size: int) -> int:
        """How many candidates a step needs."""
        return (self.config.top_k or vocab_size) if self.config.do_sample else 1

    def advance(self, step: int, candidates: Candidates, weights: Tensor | None) -> Choice:
        """Picks a token for each row; takes note of the rows that end."""
        if self.config.do_sample:
            index = self._draw(step, candidates)
            picks = (part.gather(1, index).view(self.done.shape) for part in candidates)
            candidates = Candidates(*picks)
        elif candidates.tokens.size(1) > 1:
            candidates = Candidates(*(part[:, :1] for part in candidates))
        tokens, scores, log_probs = candidates  # (b, K)
        # Where every token is banned a row ends with what it has.
        stuck = scores == -math.inf
        self.lengths += ~(self.done | stuck)
        self.done |= processors.is_one_of(tokens, self.eos) | stuck
        if step + 1 == self.config.max_new_tokens:
            self.done.fill_(True)
        return Choice(tokens, log_probs, None)

    def _draw(self, step: int, candidates: Candidates) -> Tensor:
        config = self.config
        scores = processors.truncate(
            candidates.scores.double() / config.temperature,
            top_k=config.top_k or 0,
            top_p=config.top_p,
            min_p=config.min_p or 0,
        )
        noise = philox.gumbel(self.seed, self.row_ids.flatten(), step, candidates.tokens)
        return processors.pick_largest(scores + noise, candidates.tokens)

    def keep(self, which: Tensor) -> None:
        """Drops all sources but these (k,) of the b, after taking note of what they have found."""
        self.found[self.sources] = self.lengths
        self.sources, self.done = self.sources[which], self.done[which]
        self.lengths = self.lengths[which]
        if self.config.do_sample:
            self.row_ids = self.row_ids[which]

    def hypotheses(self) -> Hypotheses:
        self.keep(self.sources[:0])
        rows = torch.arange(self.samples, device=self.found.device)
        return Hypotheses(self.found, rows.expand_as(self.found))
