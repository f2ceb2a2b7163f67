# SPDX-License-Identifier: MIT
"""Greedy decoding of a batch, step by step, on the fused step kernels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from seq2seq_ext import ops
from seq2seq_ext.generation.config import GenerationConfig

if TYPE_CHECKING:
    from seq2seq_ext.nn.decoder import Decoder, DecoderMemory, DecoderState, DecoderStep
    from seq2seq_ext.nn.seq2seq import Seq2Seq


class GenerateOutput(NamedTuple):
    """What decoding found. T is the longest row's length; values past a row's length are zero."""

    sequences: Tensor  # (B, T) int64: new tokens, end-of-sequence kept, then padding
    lengths: Tensor  # (B,) int64: tokens before the padding, end-of-sequence included
    token_log_probs: Tensor  # (B, T) float32 (float64 for float64 models)
    sequences_scores: Tensor  # (B,): their sums
    scores: Tensor | None  # output_scores: (B, T, V) log-probabilities of every token
    attentions: Tensor | None  # output_attentions: (B, T, S)
    hidden_states: Tensor | None  # output_hidden_states: (B, T, H): s_1 ... s_T
    contexts: Tensor | None  # output_hidden_states: (B, T, C) with attention, (B, C) without


@contextlib.contextmanager
def _evaluation(model: Seq2Seq) -> Iterator[None]:
    """Dropout off, and back to the modes of before."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def generate(
    model: Seq2Seq,
    src: Tensor,
    src_lengths: Tensor | Sequence[int] | None = None,
    *,
    generation_config: GenerationConfig | None = None,
    **options: object,
) -> Tensor | GenerateOutput:
    """See `Seq2Seq.generate`."""
    config = (generation_config or model.generation_config).replace(**options)
    config.validate(model.decoder.vocab_size)
    config.check_greedy()
    config.start_token_id  # noqa: B018  raises before any work is done
    if config.output_attentions and model.decoder.attention is None:
        raise ValueError(
            "generate: output_attentions needs a decoder with context 'attention', "
            f"got {model.decoder.context!r}"
        )
    with torch.inference_mode(), _evaluation(model):
        found = _Greedy(model, config).run(src, src_lengths)
    # Inference tensors could not be used in a later training step: hand out ordinary ones.
    copies = (None if t is None else t.clone() for t in found)
    found = GenerateOutput(*copies)  # type: ignore[arg-type]
    return found if config.return_dict_in_generate else found.sequences


class _Segment(NamedTuple):
    """Consecutive steps of the same rows, none of them done before the first."""

    rows: Tensor  # (N,) of the batch
    start: int
    steps: list[DecoderStep]
    tokens: list[Tensor]  # (N,) each
    log_probs: list[Tensor]  # (N,) each


class _Greedy:
    """One call: decodes segment by segment, dropping finished rows in between, then assembles."""

    def __init__(self, model: Seq2Seq, config: GenerationConfig) -> None:
        self.encoder, self.config = model.encoder, config
        self.decoder: Decoder = model.decoder
        self.weight, self.bias = self.decoder.output_parameters()
        device = self.weight.device
        if torch.is_autocast_enabled(device.type):  # once, and not at each step
            dtype = torch.get_autocast_dtype(device.type)
            self.weight, self.bias = self.weight.to(dtype), self.bias.to(dtype)
        self.keep_steps = (
            config.output_scores or config.output_attentions or config.output_hidden_states
        )
        self.eos = torch.tensor(config.eos_token_ids, dtype=torch.int64, device=device)
        if config.suppress_tokens:
            never = torch.tensor(config.suppress_tokens, dtype=torch.int64, device=device)
            self.bias = self.bias.index_fill(0, never, -math.inf)
        self.no_eos = self.bias.index_fill(0, self.eos, -math.inf)

    def run(self, src: Tensor, src_lengths: Tensor | Sequence[int] | None) -> GenerateOutput:
        encoded = self.encoder(src, src_lengths)
        memory, state = self.decoder.prepare(encoded, invariant=True)
        segments = self._loop(memory, state, encoded.outputs)
        return self._assemble([s for s in segments if s.tokens], src.size(0), memory.context)

    def _loop(self, memory: DecoderMemory, state: DecoderState, outputs: Tensor) -> list[_Segment]:
        config, device = self.config, outputs.device
        rows = torch.arange(outputs.size(0), device=device)
        tokens = torch.full_like(rows, config.start_token_id)
        done = torch.zeros_like(rows, dtype=torch.bool)
        # Off the CPU a look at `done` waits for the device: it is taken now and then.
        check_every = 1 if device.type == "cpu" else 8
        segments = [_Segment(rows, 0, [], [], [])]
        for t in range(config.max_new_tokens):
            step = self.decoder.step(tokens, state, memory)
            state = step.state
            bias = self.no_eos if t < config.min_new_tokens else self.bias
            log_probs, picks = ops.vocab_pick(step.features, self.weight, bias)
            tokens = picks[:, 0]
            if self.keep_steps:
                segments[-1].steps.append(step)
            segments[-1].tokens.append(tokens)
            segments[-1].log_probs.append(log_probs[:, 0])
            if rows.numel() == 0:
                break
            done = done | torch.isin(tokens, self.eos)
            if (t + 1) % check_every == 0 and bool(done.any()):
                live = (~done).nonzero()[:, 0]
                if live.numel() == 0:
                    break
                if 2 * live.numel() <= rows.numel():  # rows do not feel each other: drop those done
                    rows, tokens, done = rows[live], tokens[live], done[live]
                    state, memory = state.index_select(live), memory.index_select(live)
                    segments.append(_Segment(rows, t + 1, [], [], []))
        return segments

    def _assemble(
        self, segments: list[_Segment], batch: int, context: Tensor | None
    ) -> GenerateOutput:
        config = self.config
        tokens = _join(segments, [s.tokens for s in segments], batch)
        ended = torch.isin(tokens, self.eos)
        past = ended.cumsum(1) > ended.long()  # an end-of-sequence token stands before
        lengths = (~past).sum(1)
        steps = int(lengths.max()) if batch else 0

        def of_steps(values: list[list[Tensor]]) -> Tensor:
            joined = _join(segments, values, batch)[:, :steps]
            return joined.masked_fill(
                past[:, :steps].view(batch, steps, *[1] * (joined.dim() - 2)), 0
            )

        def of(name: str) -> Tensor:
            return of_steps([[getattr(step, name) for step in s.steps] for s in segments])

        log_probs = of_steps([s.log_probs for s in segments])
        _refuse_nan(log_probs)
        # A running sum: the same bits however many columns of zeros follow.
        total = log_probs.cumsum(1)[:, -1] if steps else log_probs.new_zeros(batch)
        hidden_states = of("hidden") if config.output_hidden_states else None
        if not config.output_hidden_states:
            context = None
        elif self.decoder.attention is not None:
            context = of("context")
        return GenerateOutput(
            tokens.masked_fill(past, config.fill_token_id)[:, :steps],
            lengths,
            log_probs,
            total,
            of_steps([self._scores(s) for s in segments]) if config.output_scores else None,
            of("weights") if config.output_attentions else None,
            hidden_states,
            context,
        )

    def _scores(self, segment: _Segment) -> list[Tensor]:
        """Log-probabilities (N, V) of each step."""
        wide = segment.log_probs[0].dtype
        out = []
        for t, step in enumerate(segment.steps, start=segment.start):
            bias = self.no_eos if t < self.config.min_new_tokens else self.bias
            logits = torch.nn.functional.linear(step.features, self.weight).to(wide) + bias.to(wide)
            out.append(torch.log_softmax(logits, dim=-1))
        return out


def _refuse_nan(log_probs: Tensor) -> None:
    if bool(log_probs.isnan().any()):
        row, step = log_probs.isnan().nonzero()[0].tolist()
        raise ValueError(
            f"generate: the logits of row {row} are not finite at step {step}: "
            "do the model's weights hold NaN or infinity?"
        )


def _join(segments: list[_Segment], values: list[list[Tensor]], batch: int) -> Tensor:
    """(batch, T, ...) from each segment's list of (N, ...), zero where a row took no part."""
    first, last = values[0][0], segments[-1]
    steps = last.start + len(last.tokens)
    out = first.new_zeros(batch, steps, *first.shape[1:])
    for segment, parts in zip(segments, values, strict=True):
        out[segment.rows, segment.start : segment.start + len(parts)] = torch.stack(parts, dim=1)
    return out
