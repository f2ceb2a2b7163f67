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


class _Greedy:
    """One call's buffers. `rows` maps the rows still computed to those of the batch."""

    def __init__(self, model: Seq2Seq, config: GenerationConfig) -> None:
        self.encoder, self.config = model.encoder, config
        self.decoder: Decoder = model.decoder
        self.weight, self.bias = self.decoder.output_parameters()
        device = self.weight.device.type
        if torch.is_autocast_enabled(device):  # once, and not at each step
            dtype = torch.get_autocast_dtype(device)
            self.weight, self.bias = self.weight.to(dtype), self.bias.to(dtype)
        self.no_eos = self.bias.clone()
        if config.eos_token_ids:
            self.no_eos[list(config.eos_token_ids)] = -math.inf

    def run(self, src: Tensor, src_lengths: Tensor | Sequence[int] | None) -> GenerateOutput:
        encoded = self.encoder(src, src_lengths)
        memory, state = self.decoder.prepare(encoded, invariant=True)
        self._allocate(encoded.outputs)
        context = memory.context if self.config.output_hidden_states else None
        steps = self._loop(memory, state, encoded.outputs) if src.size(0) else 0

        def cut(buffer: Tensor | None) -> Tensor | None:
            return None if buffer is None else buffer[:, :steps]

        log_probs = self.log_probs[:, :steps]
        return GenerateOutput(
            self.sequences[:, :steps],
            self.lengths,
            log_probs,
            _row_sums(log_probs),
            cut(self.scores),
            cut(self.attentions),
            cut(self.hidden_states),
            cut(self.contexts) if context is None else context,
        )

    def _allocate(self, outputs: Tensor) -> None:
        """Buffers grow by doubling: max_new_tokens is a limit and no forecast."""
        config, batch, device = self.config, outputs.size(0), outputs.device
        self.room = min(config.max_new_tokens, 16)
        wide = torch.float64 if outputs.dtype == torch.float64 else torch.float32

        def zeros(*size: int, dtype: torch.dtype = outputs.dtype) -> Tensor:
            return torch.zeros(batch, self.room, *size, dtype=dtype, device=device)

        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.sequences = zeros(dtype=torch.int64).fill_(config.fill_token_id)
        self.log_probs = zeros(dtype=wide)
        self.scores = zeros(self.decoder.vocab_size, dtype=wide) if config.output_scores else None
        self.attentions = zeros(outputs.size(1)) if config.output_attentions else None
        self.hidden_states = self.contexts = None
        if config.output_hidden_states:
            self.hidden_states = zeros(self.decoder.hidden_size)
            if self.decoder.attention is not None:
                self.contexts = zeros(outputs.size(2))

    def _grow(self) -> None:
        self.room = min(2 * self.room, self.config.max_new_tokens)
        for name in ("sequences", "log_probs", "scores", "attentions", "hidden_states", "contexts"):
            old = getattr(self, name)
            if old is not None:
                fill = self.config.fill_token_id if name == "sequences" else 0
                new = old.new_full((old.size(0), self.room, *old.shape[2:]), fill)
                new[:, : old.size(1)] = old
                setattr(self, name, new)

    def _loop(self, memory: DecoderMemory, state: DecoderState, outputs: Tensor) -> int:
        config, device = self.config, outputs.device
        rows = torch.arange(outputs.size(0), device=device)
        eos = torch.tensor(config.eos_token_ids, dtype=torch.int64, device=device)
        tokens = torch.full_like(rows, config.start_token_id)
        done = torch.zeros_like(rows, dtype=torch.bool)
        check_every = (
            1 if device.type == "cpu" else 8
        )  # elsewhere a look at `done` waits for the device
        for t in range(config.max_new_tokens):
            if t == self.room:
                self._grow()
            step = self.decoder.step(tokens, state, memory)
            state = step.state
            bias = self.no_eos if t < config.min_new_tokens else self.bias
            log_probs, picks = ops.vocab_pick(step.features, self.weight, bias)
            tokens = picks[:, 0]
            self._write(t, rows, done, tokens, log_probs[:, 0], step, bias)
            done = done | torch.isin(tokens, eos)
            if (t + 1) % check_every == 0 and bool(done.any()):
                live = (~done).nonzero()[:, 0]
                if live.numel() == 0:
                    break
                if (
                    2 * live.numel() <= rows.numel()
                ):  # rows do not feel each other, so drop those done
                    rows, tokens, done = rows[live], tokens[live], done[live]
                    state, memory = state.index_select(live), memory.index_select(live)
        return int(self.lengths.max())

    def _write(
        self,
        t: int,
        rows: Tensor,
        done: Tensor,
        tokens: Tensor,
        log_probs: Tensor,
        step: DecoderStep,
        bias: Tensor,
    ) -> None:
        """Step t of the rows not done."""
        self.sequences[rows, t] = torch.where(done, self.config.fill_token_id, tokens)
        self.log_probs[rows, t] = torch.where(done, 0, log_probs)
        self.lengths[rows] += ~done
        keep = ~done[:, None]
        for buffer, value in (
            (self.attentions, step.weights),
            (self.hidden_states, step.hidden),
            (self.contexts, step.context),
        ):
            if buffer is not None and value is not None:
                buffer[rows, t] = torch.where(keep, value, 0)
        if self.scores is not None:
            logits = torch.nn.functional.linear(step.features, self.weight).to(self.scores.dtype)
            all_log_probs = torch.log_softmax(logits + bias.to(self.scores.dtype), dim=-1)
            self.scores[rows, t] = torch.where(keep, all_log_probs, 0)


def _row_sums(log_probs: Tensor) -> Tensor:
    """Sums over T, one step after the other: the same bits however many columns of zeros follow."""
    total = log_probs.new_zeros(log_probs.size(0))
    for t in range(log_probs.size(1)):
        total = total + log_probs[:, t]
    return total
