# SPDX-License-Identifier: MIT
"""Forced decoding: what the model thinks of given targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.output import ScoreOutput, sum_scores
from seq2seq_ext.generation.predictor import Predictor


class Scoring:
    """One call: the loop of `Search` with its tokens given."""

    def __init__(self, predictor: Predictor, config: GenerationConfig) -> None:
        self.predictor, self.config = predictor, config

    def score(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None,
        tgt: Tensor,
        tgt_lengths: Tensor,
    ) -> ScoreOutput:
        running, _ = self.predictor.start(src, src_lengths)
        log_probs = torch.zeros(tgt.shape, dtype=self.predictor.dtype, device=tgt.device)
        attentions = None
        if self.config.output_attentions:
            attentions = log_probs.new_zeros(*tgt.shape, src.size(1))
        tokens = torch.full_like(tgt_lengths, self.config.start_token_id)
        for step in range(int(tgt_lengths.max()) if len(tgt) else 0):
            live = tgt_lengths[running.sources] > step
            if 2 * int(live.sum()) <= len(live):  # sources do not feel each other
                running.keep(live.nonzero()[:, 0], 1)
                tokens = tokens[live]
            rows = running.sources
            prediction = self.predictor.step(tokens, running, 1)
            tokens = tgt[rows, step]
            found = self.predictor.all(prediction)
            log_probs[rows, step] = found.gather(1, tokens[:, None])[:, 0]
            if attentions is not None:
                assert prediction.weights is not None
                attentions[rows, step] = prediction.weights.to(attentions.dtype)
        past = torch.arange(tgt.size(1), device=tgt.device) >= tgt_lengths[:, None]
        log_probs = log_probs.masked_fill(past, 0)
        if bool(log_probs.isnan().any()):
            row, step = log_probs.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"score: the logits of row {row} are not finite at step {step}: "
                "do the model's weights hold NaN or infinity?"
            )
        if attentions is not None:
            attentions = attentions.masked_fill(past[..., None], 0)
        scores = sum_scores(log_probs, tgt_lengths, self.config.length_penalty)
        return ScoreOutput(tgt_lengths, log_probs, *scores, attentions)


def target_lengths(tgt: Tensor, config: GenerationConfig) -> Tensor:
    """(B,): up to each row's first end-of-sequence token; where it has none, up to the last token
    that is not pad_token_id."""
    size = tgt.size(1)
    steps = torch.arange(1, size + 1, device=tgt.device)
    full = tgt.new_full((len(tgt), 1), size)
    ends = torch.isin(tgt, torch.tensor(config.eos_token_ids, dtype=tgt.dtype, device=tgt.device))
    first = torch.cat([torch.where(ends, steps, size + 1), full + 1], dim=1).amin(1)
    if config.pad_token_id is None:
        return first.clamp(max=size)
    held = torch.cat([torch.where(tgt != config.pad_token_id, steps, 0), 0 * full], 1).amax(1)
    return torch.where(first <= size, first, held)
