# SPDX-License-Identifier: MIT
"""The loop over steps: predict, propose, choose, take note, drop what is done."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_ext.generation.beam import BeamSearch
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.constraints import Constraints
from seq2seq_ext.generation.output import Callback, GenerateOutput, StepOutput, sum_scores
from seq2seq_ext.generation.picking import Picking
from seq2seq_ext.generation.predictor import Prediction, Predictor, Running
from seq2seq_ext.generation.proposals import Candidates, Proposals
from seq2seq_ext.generation.trace import Choice, Trace


class Search:
    """One call: B sources with K rows each, beams or samples.

    What a step changes is `running` (the models' states), `tokens`, `history` and the strategy's
    tensors. A step loops over no rows, and a row is moved by its index.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: GenerationConfig,
        constraints: Constraints,
        callback: Callback | None = None,
    ) -> None:
        self.predictor, self.config, self.callback = predictor, config, callback
        self.constraints, self.beams = constraints, config.slots
        self.proposals = Proposals(predictor, config, constraints)
        device = predictor.device
        # Off the CPU a look at what is done waits for the device: it is taken now and then.
        self.check_every = 1 if device.type == "cpu" else 8

    def run(self, src: Tensor, src_lengths: Tensor | Sequence[int] | None) -> GenerateOutput:
        config, beams, batch = self.config, self.beams, src.size(0)
        running, lengths = self.predictor.start(src, src_lengths)
        context = running.memories[0].context
        running.repeat(beams)
        self.strategy: BeamSearch | Picking
        if config.num_beams > 1:
            self.strategy = BeamSearch(config, lengths, src.size(1))
        else:
            self.strategy = Picking(config, self.constraints.row_ids)
        size = self.predictor.vocab_size
        count = size if config.output_scores else self.strategy.count(size)
        self.trace = Trace(batch, beams)
        tokens = torch.full((batch * beams,), config.start_token_id, device=src.device)
        history = tokens.new_empty(batch * beams, 0)
        for step in range(config.max_new_tokens):
            prediction = self.predictor.step(tokens, running, beams)
            candidates = self.proposals(prediction, step, history, count)
            choice = self._advance(step, prediction, candidates)
            tokens, history = self._move(running, choice, history)
            if batch == 0:
                break
            if (step + 1) % self.check_every == 0 and bool(self.strategy.done.any()):
                live = ~self.strategy.done.all(1)
                left = int(live.sum())
                if left == 0:
                    break
                if 2 * left <= len(live):  # sources do not feel each other: drop those done
                    rows = live.repeat_interleave(beams)
                    tokens, history = tokens[rows], history[rows]
                    which = live.nonzero()[:, 0]
                    running.keep(which, beams)
                    self.strategy.keep(which)
        return self._assemble(context)

    def _advance(self, step: int, prediction: Prediction, candidates: Candidates) -> Choice:
        """Chooses, and takes note of everything that is wanted of the step."""
        done = self.strategy.done.clone() if self.callback is not None else None
        choice = self.strategy.advance(step, candidates, prediction.weights)
        self.trace.add(prediction.sources, choice, self._extras(prediction, candidates))
        if self.callback is not None:
            assert done is not None
            self.callback(self._step_output(step, choice, done))
        return choice

    def _move(self, running: Running, choice: Choice, history: Tensor) -> tuple[Tensor, Tensor]:
        """The next step's tokens and history; states follow the rows that were chosen."""
        tokens = choice.tokens.flatten()
        if choice.parents is not None:
            first = torch.arange(len(choice.parents), device=tokens.device) * self.beams
            rows = (first[:, None] + choice.parents).flatten()
            running.reorder(rows)
            history = history[rows]
        if self.proposals.needs_history:
            history = torch.cat([history, tokens[:, None]], dim=1)
        return tokens, history

    def _extras(self, prediction: Prediction, candidates: Candidates) -> dict[str, Tensor]:
        """What the trace keeps of each row besides its choice."""
        config, extras = self.config, {}
        step = prediction.steps[0]
        if config.output_attentions:
            assert prediction.weights is not None
            extras["attentions"] = prediction.weights
        if config.output_hidden_states:
            extras["hidden_states"] = step.hidden
            if step.weights is not None:
                extras["contexts"] = step.context
        if config.output_scores:
            banned = candidates.scores == -math.inf
            scores = candidates.log_probs.masked_fill(banned, -math.inf)
            extras["scores"] = torch.empty_like(scores).scatter_(1, candidates.tokens, scores)
        return extras

    def _step_output(self, step: int, choice: Choice, before: Tensor) -> StepOutput:
        """For the whole batch. before: (b, K) bool, what was done before this step."""
        own = torch.arange(self.beams, device=before.device).expand_as(before)
        parents = own if choice.parents is None else choice.parents
        fill = self.config.fill_token_id
        parts = (
            (torch.where(before, fill, choice.tokens), fill),
            (torch.where(before, own, parents), own[:1]),
            (torch.where(before, 0, choice.log_probs), 0),
            (self.strategy.done, True),
        )
        whole = []
        for live, otherwise in parts:
            full = live.new_empty(len(self.constraints.row_ids), self.beams)
            full[:] = otherwise
            whole.append(full.index_copy_(0, self.strategy.sources, live))
        return StepOutput(step, *whole)

    def _refuse_undefined(self, log_probs: Tensor) -> None:
        """Raises ValueError where logits were not finite. log_probs: (R, T)."""
        if isinstance(self.strategy, BeamSearch):
            places = (self.strategy.undefined >= 0).nonzero()
            steps = self.strategy.undefined
            where = [(int(row), int(steps[row])) for row in places[:1, 0]]
        else:
            places = log_probs.isnan().nonzero()
            where = [(row // self.beams, step) for row, step in places[:1].tolist()]
        for row, step in where:
            raise ValueError(
                f"generate: the logits of row {row} are not finite at step {step}: "
                "do the model's weights hold NaN or infinity?"
            )

    def _assemble(self, context: Tensor | None) -> GenerateOutput:
        config = self.config
        found = self.strategy.hypotheses()
        values = {name: v.flatten(0, 1) for name, v in self.trace.follow(found).items()}
        lengths, log_probs = found.lengths.flatten(), values["log_probs"]
        self._refuse_undefined(log_probs)
        past = torch.arange(log_probs.size(1), device=lengths.device) >= lengths[:, None]
        total, normalized = sum_scores(log_probs, lengths, config.length_penalty)
        ranks = None if found.scores is None else found.scores.flatten()
        if ranks is not None:  # fewer hypotheses than were asked for
            total = total.masked_fill(ranks == -math.inf, -math.inf)
            normalized = normalized.masked_fill(ranks == -math.inf, -math.inf)
        contexts = values.get("contexts")
        if config.output_hidden_states and contexts is None and context is not None:
            contexts = context.repeat_interleave(found.lengths.size(1), dim=0)
        return GenerateOutput(
            values["tokens"].masked_fill(past, config.fill_token_id),
            lengths,
            log_probs,
            total,
            normalized,
            ranks,
            values.get("scores"),
            values.get("attentions"),
            values.get("hidden_states"),
            contexts,
        )
