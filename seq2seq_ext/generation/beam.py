# SPDX-License-Identifier: MIT
"""Beam search over whole batches: the hypotheses that go on, and those that are finished.

Legend: b of B sources, G groups of k = K / G beams each, C candidates of a beam, M of a group.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq_ext.generation import exact, processors
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.proposals import Candidates
from seq2seq_ext.generation.trace import Choice, Hypotheses


class Finished(NamedTuple):
    """The k best finished hypotheses of each group, by descending rank."""

    ranks: Tensor  # float64; -inf: none yet
    lengths: Tensor  # int64
    rows: Tensor  # int64: the beam that the last token continues, 0 .. K-1
    tokens: Tensor  # int64: the last
    log_probs: Tensor  # the model's, of the last

    @classmethod
    def empty(cls, ranks: Tensor) -> Finished:
        """Hypotheses of no tokens."""
        ids = [torch.zeros_like(ranks, dtype=torch.int64) for _ in range(3)]
        return cls(ranks, ids[0], ids[1], ids[2], torch.zeros_like(ranks))

    def best(self, other: Finished, count: int) -> Finished:
        """The best of both; of equals these before the others, and each in its order."""
        joined = [torch.cat(pair, dim=-1) for pair in zip(self, other, strict=True)]
        order = joined[0].argsort(dim=-1, descending=True, stable=True)[..., :count]
        return Finished(*(part.gather(-1, order) for part in joined))

    def where(self, which: Tensor) -> Finished:
        """These, without a rank where they do not count."""
        return self._replace(ranks=torch.where(which, self.ranks, -math.inf))


class BeamSearch:
    """K beams of each source, in G groups. Tensors are those of the b sources at work, until `keep`
    drops some.

    Args:
        source_lengths: (B,) int64, and `size`, S: what the coverage penalty is about.
    """

    def __init__(self, config: GenerationConfig, source_lengths: Tensor, size: int) -> None:
        self.config, self.beams = config, config.num_beams
        self.groups = config.num_beam_groups
        self.width = self.beams // self.groups
        batch, device = len(source_lengths), source_lengths.device
        self.eos = torch.tensor(config.eos_token_ids, dtype=torch.int64, device=device)
        self.sources = torch.arange(batch, device=device)
        # Each group begins with one beam: its others would say the same.
        shape = (batch, self.groups, self.width)
        self.scores = torch.full(shape, -math.inf, dtype=torch.float64, device=device)
        self.scores[..., 0] = 0
        self.group_done = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self.finished = Finished.empty(torch.full_like(self.scores, -math.inf))
        # What runs, as it would rank if it ended now.
        self.running = Finished.empty(self.scores.clone())
        self.found = Finished.empty(self.finished.ranks.clone())  # (B, G, k)
        # The first step at which a source's logits were not finite; -1: none.
        self.undefined = torch.full((batch,), -1, device=device)
        if config.coverage_penalty:
            self.coverage = self.scores.new_zeros(batch, self.beams, size)
            positions = torch.arange(size, device=device)
            self.outside = (positions >= source_lengths[:, None])[:, None]

    @property
    def done(self) -> Tensor:
        """(b, K) bool."""
        return self.group_done.all(1, keepdim=True).expand(-1, self.beams)

    def count(self, vocab_size: int) -> int:
        """How many candidates of each beam a step needs."""
        return self.config.candidates(vocab_size)

    def advance(self, step: int, candidates: Candidates, weights: Tensor | None) -> Choice:
        """Extends the hypotheses of each group in turn; takes note of those that end."""
        shape = (*self.scores.shape, candidates.tokens.size(1))
        tokens, scores, log_probs = (part.reshape(shape) for part in candidates)
        totals = self.scores[..., None] + self._finite(step, scores.double())
        penalties = self._cover(weights)
        chosen = tokens.new_empty(len(tokens), 0)  # by earlier groups; -1: by none
        parts = []
        for group in range(self.groups):
            flat = (part[:, group].flatten(1) for part in (totals, tokens, log_probs.double()))
            parts.append(self._extend(step, group, penalties, chosen, *flat))
            alive = parts[-1].ranks > -math.inf
            chosen = torch.cat([chosen, torch.where(alive, parts[-1].tokens, -1)], dim=1)
        _, _, rows, tokens, values = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        if self.config.coverage_penalty:
            index = rows[..., None].expand(-1, -1, self.coverage.size(-1))
            self.coverage = self.coverage.gather(1, index)
        return Choice(tokens, values.to(log_probs.dtype), rows)

    def _finite(self, step: int, scores: Tensor) -> Tensor:
        """Scores (b, G, k, C) without the NaN of undefined logits; takes note of their sources."""
        undefined = scores.isnan()
        alive = self.scores > -math.inf
        noted = self.undefined[self.sources]
        new = (undefined.any(-1) & alive).flatten(1).any(1) & (noted < 0)
        self.undefined[self.sources] = torch.where(new, step, noted)
        return torch.where(undefined, -math.inf, scores)

    def _extend(
        self,
        step: int,
        group: int,
        penalties: Tensor,
        chosen: Tensor,
        totals: Tensor,
        tokens: Tensor,
        log_probs: Tensor,
    ) -> Finished:
        """One group's step: candidates (b, k * C), beam by beam, to what runs then (b, k)."""
        keys, k = totals, self.width
        if chosen.size(1):
            count = (tokens[..., None] == chosen[:, None]).sum(-1)
            keys = totals - self.config.diversity_penalty * count
        most = k * (1 + len(self.eos))
        order = keys.argsort(dim=1, descending=True, stable=True)[:, :most]
        totals, tokens, log_probs = (x.gather(1, order) for x in (totals, tokens, log_probs))
        rows = group * k + order // (keys.size(1) // k)
        ranks = totals / self._norm(step + 1) + penalties.gather(1, rows)
        candidates = Finished(ranks, torch.full_like(rows, step + 1), rows, tokens, log_probs)
        possible, ends = totals > -math.inf, processors.is_one_of(tokens, self.eos)

        # What ends counts if it is among the first k; what goes on are the first k of the others.
        first = torch.arange(ends.size(1), device=ends.device) < k
        ended = candidates.where(ends & possible & first)
        going = (ends | ~possible).to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
        scores = totals.masked_fill(ends, -math.inf).gather(1, going)
        running = Finished(*(part.gather(1, going) for part in candidates))
        running = running.where(scores > -math.inf)

        finished = Finished(*(part[:, group] for part in self.finished)).best(ended, k)
        # Where nothing at all can follow, hypotheses end as they are.
        done = self.group_done[:, group]
        stuck = ~possible.any(1) & ~done
        before = Finished(*(part[:, group] for part in self.running))
        finished = finished.best(before.where(stuck[:, None]), k)
        if step + 1 == self.config.max_new_tokens:
            finished = finished.best(running, k)
            done = torch.ones_like(done)
        done = done | self._is_done(step + 1, finished, running, scores)

        for whole, part in zip((*self.finished, *self.running), (*finished, *running), strict=True):
            whole[:, group] = part
        self.scores[:, group] = scores.masked_fill(done[:, None], -math.inf)
        self.group_done[:, group] = done
        return running

    def _is_done(
        self, length: int, finished: Finished, running: Finished, scores: Tensor
    ) -> Tensor:
        """(b,) bool: whether a group needs no further step. scores (b, k): of what runs."""
        worst = finished.ranks[:, -1]
        full = worst > -math.inf  # k hypotheses
        if self.config.early_stopping is False:
            full = full & (worst >= running.ranks.amax(1))
        elif self.config.early_stopping == "never":
            # Scores only fall, and coverage costs nothing at best.
            longest = self.config.max_new_tokens
            best = torch.maximum(scores / self._norm(length), scores / self._norm(longest))
            full = full & (worst >= best.amax(1))
        return full | ~(scores > -math.inf).any(1)

    def _norm(self, length: int) -> float:
        return float(length**self.config.length_penalty)

    def _cover(self, weights: Tensor | None) -> Tensor:
        """Adds this step's attention; what each beam's coverage (b, K) is worth."""
        if not self.config.coverage_penalty:
            return self.scores.new_zeros(len(self.sources), self.beams)
        assert weights is not None
        self.coverage = self.coverage + weights.double().view(self.coverage.shape)
        share = self.coverage.clamp(torch.finfo(torch.float32).tiny, 1)
        logs = exact.log(share).masked_fill(self.outside, 0)
        return self.config.coverage_penalty * logs.cumsum(-1)[..., -1]

    def keep(self, which: Tensor) -> None:
        """Drops all sources but these (k,) of the b, after taking note of what they have found."""
        for whole, part in zip(self.found, self.finished, strict=True):
            whole[self.sources] = part
        self.sources, self.scores = self.sources[which], self.scores[which]
        self.group_done = self.group_done[which]
        self.finished = Finished(*(part[which] for part in self.finished))
        self.running = Finished(*(part[which] for part in self.running))
        if self.config.coverage_penalty:
            self.coverage, self.outside = self.coverage[which], self.outside[which]

    def hypotheses(self) -> Hypotheses:
        """The best of all groups."""
        self.keep(self.sources[:0])
        flat = Finished(*(part.flatten(1) for part in self.found))
        order = flat.ranks.argsort(dim=1, descending=True, stable=True)
        order = order[:, : self.config.num_return_sequences]
        best = Finished(*(part.gather(1, order) for part in flat))
        lengths = torch.where(best.ranks > -math.inf, best.lengths, 0)
        return Hypotheses(lengths, best.rows, best.tokens, best.log_probs, best.ranks)
