# SPDX-License-Identifier: MIT
"""From the tokens of one step to the next token's log-probabilities: one model, or several."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from seq2seq_ext import ops
from seq2seq_ext.generation import exact
from seq2seq_ext.reference import state_dtype

if TYPE_CHECKING:
    from seq2seq_ext.nn.decoder import Decoder, DecoderMemory, DecoderState, DecoderStep
    from seq2seq_ext.nn.seq2seq import Seq2Seq

COMBINATIONS = ("probabilities", "log_probabilities")


@dataclasses.dataclass
class Running:
    """The sources at work, b of B, and each model's memory of them and states."""

    sources: Tensor  # (b,) int64: which of the batch's B rows
    memories: list[DecoderMemory]  # of b rows
    states: list[DecoderState]  # of b * beams rows

    def repeat(self, beams: int) -> None:
        """Each source's first state for all of its beams."""
        if beams > 1:
            rows = torch.arange(len(self.sources), device=self.sources.device)
            self.reorder(rows.repeat_interleave(beams))

    def reorder(self, rows: Tensor) -> None:
        self.states = [state.index_select(rows) for state in self.states]

    def keep(self, which: Tensor, beams: int) -> None:
        """Drops all sources but those (k,) of the b."""
        slots = torch.arange(beams, device=which.device)
        self.reorder((which[:, None] * beams + slots).flatten())
        self.memories = [memory.index_select(which) for memory in self.memories]
        self.sources = self.sources[which]


class Prediction(NamedTuple):
    """One step of N = b * beams rows; what `Predictor.top` and `Predictor.all` read."""

    sources: Tensor  # (b,)
    steps: list[DecoderStep]  # of each model

    @property
    def weights(self) -> Tensor | None:
        """(N, S): attention, the mean of the models'; None: one of them has none."""
        weights = [step.weights for step in self.steps if step.weights is not None]
        if len(weights) < len(self.steps):
            return None
        return _average(weights)


class Predictor:
    """The models of a call, with the rows of their output layers that the call needs.

    Every function's row depends on that row alone, bit for bit, as the kernels' rows do.

    Args:
        combine: of several models: the mean of the "probabilities", or of the "log_probabilities"
            (which then do not add up to 1).
        shortlist: (n,) ids of all rows, or a list with those of each source: the softmax is over
            these alone, and no other row of the weights is read.
    """

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        combine: str = "probabilities",
        shortlist: Tensor | list[Tensor] | None = None,
    ) -> None:
        self.models, self.combine = list(models), combine
        self.vocab_size = self.models[0].decoder.vocab_size
        self.common = shortlist if isinstance(shortlist, Tensor) else None
        self.by_source = shortlist if isinstance(shortlist, list) else None
        self.prepared = [model.prepared_weights() for model in self.models]
        parts = [
            model if prepared is None else prepared
            for model, prepared in zip(self.models, self.prepared, strict=True)
        ]
        self.encoders = [part.encoder for part in parts]
        self.decoders = [part.decoder for part in parts]
        self.whole = [
            _output(decoder) if prepared is None else prepared.output
            for decoder, prepared in zip(self.decoders, self.prepared, strict=True)
        ]
        self.outputs = self.whole
        if self.common is not None:
            self.outputs = [(w[self.common], b[self.common]) for w, b in self.whole]
        self._packed: dict[int, Tensor | None] = {}
        wide = [state_dtype(weight.dtype) for weight, _ in self.whole]
        self.dtype = torch.float64 if torch.float64 in wide else torch.float32

    @property
    def device(self) -> torch.device:
        return self.whole[0][0].device

    @property
    def has_top(self) -> bool:
        """Whether `top` gets at the best tokens without all the others."""
        return len(self.models) == 1 and self.by_source is None

    @property
    def size(self) -> int:
        """Tokens that there are to choose from."""
        return self.vocab_size if self.common is None else len(self.common)

    def start(self, src: Tensor, lengths: Tensor | Sequence[int] | None) -> tuple[Running, Tensor]:
        """Also returns the sources' lengths (B,)."""
        memories, states = [], []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            encoded = encoder(src, lengths)
            memory, state = decoder.prepare(encoded, invariant=True)
            memories.append(memory)
            states.append(state)
        sources = torch.arange(src.size(0), device=src.device)
        return Running(sources, memories, states), encoded.lengths

    def step(self, tokens: Tensor, running: Running, beams: int) -> Prediction:
        """Reads tokens (N,) and goes to the next state."""
        parts = zip(self.decoders, running.states, running.memories, strict=True)
        steps = [d.step(tokens, state, memory, beams=beams) for d, state, memory in parts]
        running.states = [step.state for step in steps]
        return Prediction(running.sources, steps)

    def top(self, prediction: Prediction, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable tokens, ties lowest id first: log_probs, ids, both (N, k)."""
        [step] = prediction.steps
        log_probs, ids = ops.vocab_pick(
            step.features, *self.outputs[0], k=k, panels=self._panels(0)
        )
        return log_probs, ids if self.common is None else self.common[ids]

    def all(self, prediction: Prediction) -> Tensor:
        """The log-probabilities of all tokens (N, V): -inf outside a shortlist."""
        parts = [self._all(prediction, index) for index in range(len(self.models))]
        if len(parts) == 1:
            return parts[0]
        return _combine(parts, self.combine).to(self.dtype)

    def log_partition(self, prediction: Prediction, log_probs: Tensor, ids: Tensor) -> Tensor:
        """(N, 1) float64: logit - log-probability, the mean of the models'.

        log_probs and ids: (N, C) from `top` or `all`, of equals the lowest id first. One logit, of
        the most probable token, is computed anew.
        """
        found = []
        for index, step in enumerate(prediction.steps):
            own, tokens = log_probs, ids
            if len(self.models) > 1:
                own = self._all(prediction, index)
                tokens = torch.arange(self.vocab_size, device=own.device).expand_as(own)
            at = own.argmax(1, keepdim=True)  # the first of equals
            best = tokens.gather(1, at)[:, 0]
            weight, bias = self.whole[index]
            # A running sum: a sum's order might depend on the number of rows.
            products = step.features.double() * weight[best].double()
            logit = products.cumsum(1)[:, -1] + bias[best].double()
            found.append(logit - own.gather(1, at)[:, 0].double())
        return _average(found)[:, None]

    def _all(self, prediction: Prediction, index: int) -> Tensor:
        """One model's, by the kernel that picks: its numbers are those of `top`, to the bit."""
        features = prediction.steps[index].features
        weight, bias = self.outputs[index]
        if self.by_source is None:
            log_probs, ids = ops.vocab_pick(
                features, weight, bias, k=len(weight), panels=self._panels(index)
            )
            ids = ids if self.common is None else self.common[ids]
            return self._spread(log_probs, ids)
        rows = []
        groups = features.unflatten(0, (max(len(prediction.sources), 1), -1))
        for group, source in zip(groups, prediction.sources.tolist(), strict=False):
            ids = self.by_source[source]
            few, packed = weight[ids], None
            if self.prepared[index] is not None:
                packed = ops.pack_panels(few)
            log_probs, picks = ops.vocab_pick(group, few, bias[ids], k=len(ids), panels=packed)
            rows.append(self._spread(log_probs, ids[picks]))
        if not rows:
            return features.new_zeros(0, self.vocab_size, dtype=state_dtype(features.dtype))
        return torch.cat(rows)

    def _panels(self, index: int) -> Tensor | None:
        """Those of a model's output layer: prepared weights are summed as `native` does."""
        prepared = self.prepared[index]
        if prepared is None:
            return None
        if self.common is None and prepared.panels is not None and prepared.screen is None:
            return prepared.panels.output
        if index not in self._packed:
            self._packed[index] = ops.pack_panels(self.outputs[index][0])
        return self._packed[index]

    def _spread(self, log_probs: Tensor, ids: Tensor) -> Tensor:
        """(N, V) from the log-probabilities of some ids, (N, n) both."""
        full = log_probs.new_full((len(log_probs), self.vocab_size), -math.inf)
        return full.scatter_(1, ids, log_probs)


def _output(decoder: Decoder) -> tuple[Tensor, Tensor]:
    weight, bias = decoder.output_parameters()
    if torch.is_autocast_enabled(weight.device.type):  # once, and not at each step
        dtype = torch.get_autocast_dtype(weight.device.type)
        return weight.to(dtype), bias.to(dtype)
    return weight, bias


def _average(parts: list[Tensor]) -> Tensor:
    """In the order of the models, whatever the shape: a reduction's order might depend on it."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts) if len(parts) > 1 else total


def _combine(parts: list[Tensor], combine: str) -> Tensor:
    """The mean of several models' log-probabilities, or the logarithm of their probabilities'."""
    parts = [part.double() for part in parts]
    if combine == "log_probabilities":
        return _average(parts)
    top = functools.reduce(torch.maximum, parts)
    shares = [exact.exp(torch.where(top == -math.inf, 0.0, part - top)) for part in parts]
    return top + exact.log(_average(shares))
