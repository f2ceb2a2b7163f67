# SPDX-License-Identifier: MIT
"""The whole loop in one call: the op `decode` of csrc/bindings/decode_sequences_op.cpp.

It does what `Search` and `Scoring` do, step by step, and reports the same bits; those remain for
what it does not take (see support.py), and as its oracle.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from seq2seq_ext import ops
from seq2seq_ext.generation import support
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.constraints import Constraints
from seq2seq_ext.generation.output import Callback, GenerateOutput, ScoreOutput, sum_scores
from seq2seq_ext.generation.telling import Teller, Watch

if TYPE_CHECKING:
    from seq2seq_ext.generation.predictor import Predictor, Running

_CELLS, _CONTEXTS = ("lstm", "gru", "tanh", "relu"), ("initial_state", "every_step", "attention")
_EARLY_STOPPING = {False: 0, True: 1, "never": 2}


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Decodes by the loop in Python: for tests, and to see what the native loop gains."""
    token = support.enabled.set(False)
    try:
        yield
    finally:
        support.enabled.reset(token)


class Decode:
    """One call of the op: a model and the sources it is to read."""

    def __init__(self, predictor: Predictor, config: GenerationConfig) -> None:
        self.predictor, self.config = predictor, config
        self.decoder = predictor.decoders[0]

    def generate(
        self,
        constraints: Constraints,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None,
        callback: Callback | None = None,
    ) -> GenerateOutput:
        config, wanted = self.config, self.config.output_hidden_states
        running, lengths = self.predictor.start(src, src_lengths)
        mode = "beam" if config.num_beams > 1 else "sample" if config.do_sample else "greedy"
        seed = 0
        if config.do_sample:
            # The default generator is asked once: draws are then keyed, not taken in turn.
            drawn = int(torch.empty((), dtype=torch.int64).random_())
            seed = drawn if config.seed is None else config.seed
        allowed = constraints.allowed
        if allowed is not None and self.predictor.common is not None:
            allowed = allowed[:, self.predictor.common]
        teller = None
        if callback is not None:
            teller = Teller(callback, (src.size(0), config.slots), config.fill_token_id)
        tokens, found, log_probs, ranks, attentions, hidden, contexts, scores = self._run(
            "generate",
            running,
            lengths,
            mode,
            seed,
            attentions=config.output_attentions,
            allowed=allowed,
            prefix=constraints.prefix,
            row_ids=constraints.row_ids,
            teller=teller,
        )
        context = running.memories[0].context
        if wanted and self.decoder.attention is None and context is not None:
            contexts = context.repeat_interleave(len(found) // max(len(src), 1), dim=0)
        past = torch.arange(tokens.size(1), device=tokens.device) >= found[:, None]
        total, normalized = sum_scores(log_probs, found, config.length_penalty)
        if mode == "beam":  # there may be fewer hypotheses than were asked for
            total = total.masked_fill(ranks == -math.inf, -math.inf)
            normalized = normalized.masked_fill(ranks == -math.inf, -math.inf)
        return GenerateOutput(
            tokens.masked_fill_(past, config.fill_token_id),
            found,
            log_probs,
            total,
            normalized,
            ranks if mode == "beam" else None,
            scores if config.output_scores else None,
            attentions if config.output_attentions else None,
            hidden if wanted else None,
            contexts if wanted else None,
        )

    def score(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None,
        tgt: Tensor,
        tgt_lengths: Tensor,
    ) -> ScoreOutput:
        running, lengths = self.predictor.start(src, src_lengths)
        wanted = self.config.output_attentions
        longest = int(tgt_lengths.max()) if len(tgt) else 0
        log_probs = torch.zeros(tgt.shape, dtype=self.predictor.dtype, device=tgt.device)
        attentions = log_probs.new_zeros(*tgt.shape, src.size(1)) if wanted else None
        if longest:
            _, _, told, _, weights, *_ = self._run(
                "score",
                running,
                lengths,
                "given",
                attentions=wanted,
                given=tgt.contiguous(),
                given_lengths=tgt_lengths.contiguous(),
            )
            log_probs[:, :longest] = told
            if attentions is not None:
                attentions[:, :longest] = weights
        scores = sum_scores(log_probs, tgt_lengths, self.config.length_penalty)
        return ScoreOutput(tgt_lengths, log_probs, *scores, attentions)

    def _run(
        self,
        where: str,
        running: Running,
        lengths: Tensor,
        mode: str,
        seed: int = 0,
        *,
        attentions: bool,
        allowed: Tensor | None = None,
        prefix: Tensor | None = None,
        row_ids: Tensor | None = None,
        given: Tensor | None = None,
        given_lengths: Tensor | None = None,
        teller: Teller | None = None,
    ) -> tuple[Tensor, ...]:
        """tokens, lengths, log_probs, ranks, attentions, hidden, contexts, scores."""
        first, *others = (self._model(i) for i in range(len(self.predictor.decoders)))
        fed, *more_fed = (self._fed(i, running) for i in range(len(self.predictor.decoders)))
        panels, *more_panels = (self._panels(i) for i in range(len(self.predictor.decoders)))
        # Without attention the op does not need to know where a source ends.
        attends = any(decoder.attention is not None for decoder in self.predictor.decoders)
        counts, numbers = self._numbers(mode, seed, attentions)
        watch = Watch()
        arguments = (
            *first,
            *self._words(),
            *panels,
            *fed,
            lengths if attends else None,
            mode,
            counts,
            numbers,
            list(self.config.eos_token_ids),
            list(self.config.banned_token_ids) if mode != "given" else [],
            self._phrases() if mode != "given" else [],
            allowed,
            prefix,
            row_ids,
            given,
            given_lengths,
            0 if teller is None else teller.address,
            *self._shortlists(lengths.device),
            watch.address,
            *_more_models(others, more_panels, more_fed),
            self.predictor.combine == "log_probabilities",
        )
        called = [watch] if teller is None else [teller, watch]
        try:
            *found, undefined, scores = ops.kernels.decode(*arguments)
        except RuntimeError:
            for error in (one.error for one in called if one.error is not None):
                raise error from None
            raise
        finally:
            for one in called:
                one.close()
        row, step = undefined.tolist()
        if row >= 0:
            raise ValueError(
                f"{where}: the logits of row {row} are not finite at step {step}: "
                "do the model's weights hold NaN or infinity?"
            )
        return (*found, scores)

    def _model(self, index: int) -> _Model:
        decoder = self.predictor.decoders[index]
        layers = [
            w for layer in range(decoder.num_layers) for w in decoder.rnn.layer_weights(layer)
        ]
        attention, additive, scale = [], False, 1.0
        if decoder.attention is not None:
            additive = decoder.attention.kind == "additive"
            scale = decoder.attention.scale
            attention = [decoder.combine.weight_ih, decoder.combine.weight_hh]
            if decoder.attention.query is not None:
                attention.append(decoder.attention.query.weight)
            if additive:
                attention.append(decoder.attention.v)
        return _Model(
            decoder.rnn.nonlinearity if decoder.cell == "rnn" else decoder.cell,
            decoder.context,
            decoder.input_feeding,
            decoder.embedding.weight,
            layers,
            attention,
            additive,
            scale,
            *self.predictor.outputs[index],
        )

    def _words(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The op's arguments from `tokens` to `screen_numbers`."""
        prepared, common = self.predictor.prepared[0], self.predictor.common
        if prepared is None or prepared.screen is None or common is not None:
            return common, None, None
        return None, prepared.screen.panels, prepared.screen.numbers

    def _panels(self, index: int) -> _Panels:
        prepared = self.predictor.prepared[index]
        if prepared is None or prepared.panels is None:
            return _Panels([], None)
        # Those of the output layer hold all words.
        whole = self.predictor.common is None
        return _Panels(prepared.panels.recurrent, prepared.panels.output if whole else None)

    def _fed(self, index: int, running: Running) -> _Fed:
        memory, state = running.memories[index], running.states[index]
        decoder, attention = self.predictor.decoders[index], memory.attention
        return _Fed(
            list(state.hidden),
            [] if state.cell is None else list(state.cell),
            None if attention is None else attention.keys,
            None if attention is None else attention.values,
            memory.context if decoder.context == "every_step" else None,
        )

    def _numbers(self, mode: str, seed: int, attentions: bool) -> tuple[list[int], list[float]]:
        """The op's `counts` and `numbers`, in its order."""
        config = self.config
        slots, top_k = 1 if mode == "given" else config.slots, config.top_k or 0
        signed = seed - 2**64 if seed >= 2**63 else seed  # the same 64 bits
        counts = [
            slots,
            1 if mode == "given" else config.num_return_sequences,
            config.max_new_tokens,
            config.min_new_tokens,
            config.start_token_id,
            config.no_repeat_ngram_size,
            top_k if mode == "sample" and top_k < self.predictor.size else 0,  # 0: all
            signed,
            _EARLY_STOPPING[config.early_stopping],
            config.num_beam_groups if mode == "beam" else 1,
            int(attentions),
            int(self.config.output_hidden_states and mode != "given"),
            int(self.config.output_scores and mode != "given"),
        ]
        sampling = mode == "sample"
        numbers = [
            config.repetition_penalty,
            config.temperature if sampling else 1.0,
            config.top_p if sampling else 1.0,
            (config.min_p or 0.0) if sampling else 0.0,
            config.length_penalty,
            config.coverage_penalty if mode == "beam" else 0.0,
            config.diversity_penalty,
        ]
        return counts, [float(number) for number in numbers]

    def _shortlists(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Those of the sources' own, one after the other, and where each begins."""
        lists = self.predictor.by_source
        if lists is None:
            return None, None
        ends = torch.tensor([0, *(len(ids) for ids in lists)]).cumsum(0)
        none = torch.zeros(0, dtype=torch.int64)
        return torch.cat([none.to(device), *lists]), ends.to(device)

    def _phrases(self) -> list[int]:
        """Bad words of two tokens and more, each behind its length."""
        phrases = [word for word in self.config.bad_words_ids or () if len(word) > 1]
        return [number for word in phrases for number in (len(word), *word)]


class _Model(NamedTuple):
    """A model's arguments of the op, in its order."""

    cell: str
    context: str
    input_feeding: bool
    embedding: Tensor
    layers: list[Tensor]
    attention: list[Tensor]
    additive: bool
    scale: float
    output_weight: Tensor
    output_bias: Tensor | None


class _Panels(NamedTuple):
    """A model's weights in panels: the op's arguments in its order."""

    panels: list[Tensor]
    output_panels: Tensor | None


class _Fed(NamedTuple):
    """What a model is fed of its sources: the op's arguments in its order."""

    hidden: list[Tensor]
    cells: list[Tensor]
    keys: Tensor | None
    values: Tensor | None
    source_context: Tensor | None


def _more_models(
    models: Sequence[_Model], panels: Sequence[_Panels], fed: Sequence[_Fed]
) -> tuple[list[Tensor], list[int], list[float]]:
    """The op's `more`, `more_layout` and `more_scales`."""
    tensors: list[Tensor | None] = []
    layout = []
    for model, packed, own in zip(models, panels, fed, strict=True):
        layout += [_CELLS.index(model.cell), _CONTEXTS.index(model.context)]
        layout += [int(model.input_feeding), int(model.additive)]
        layout += [len(model.layers), len(model.attention), int(model.output_bias is not None)]
        layout += [len(own.hidden), len(own.cells), int(own.keys is not None)]
        layout += [int(own.source_context is not None), len(packed.panels)]
        layout += [int(packed.output_panels is not None)]
        tensors += [model.embedding, *model.layers, *model.attention]
        tensors += [model.output_weight, model.output_bias, *packed.panels, packed.output_panels]
        tensors += [*own.hidden, *own.cells]
        tensors += [own.keys, own.values, own.source_context]
    return [t for t in tensors if t is not None], layout, [model.scale for model in models]
