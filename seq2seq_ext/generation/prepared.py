# SPDX-License-Identifier: MIT
"""A decoder's weights as decoding reads them: in a narrower dtype, or screened in int8."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from seq2seq_ext.nn.decoder import Decoder, DecoderMemory, DecoderState

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

# csrc/kernels/common/decode.h: the screen's words and depth come in multiples of these.
_WORDS, _DEPTH, _PANEL = 96, 4, 16
# 255 * 127 * H must fit into 31 bits.
_MOST_DEPTH = 2**15


class Screen(NamedTuple):
    """An int8 copy of an output layer, w = scale * q + r, and how far its logits can be off."""

    panels: Tensor  # (V / 16, H / 4, 16, 4) uint8: q + 128; V and H filled up
    numbers: Tensor  # (5, V) float32: scale, |r| and rounding, scale * |q|, slack, bias

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Screen:
        """Raises ValueError: weights that are not finite, or more of them a word than fit."""
        words, depth = weight.shape
        if depth > _MOST_DEPTH:
            raise ValueError(f"int8 takes a hidden_size of {_MOST_DEPTH} at most, got {depth}")
        if not bool(weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError("int8 needs finite output weights, and these hold NaN or infinity")
        size, deep = words + -words % _WORDS, depth + -depth % _DEPTH
        panels = torch.full((size, deep), 128, dtype=torch.uint8)
        numbers = torch.zeros(5, size)
        numbers[4, :words] = bias.float()
        for first in range(0, words, 4096):  # bounds what the float64 copies take
            part = slice(first, min(first + 4096, words))
            w = weight[part].double()
            scale = (w.abs().amax(1) / 127).float()
            q = torch.where(scale[:, None] > 0, w / scale[:, None].double(), 0).round()
            q = q.clamp(-127, 127)
            panels[part, :depth] = (q + 128).to(torch.uint8)
            wide = scale.double()
            # Sums of `depth` products in float32, twice: the bound of their rounding, and as much
            # again for what else is rounded. Every number is rounded up.
            rounding = (depth + 16) * 2.0**-22 * w.norm(dim=1)
            residual = (w - wide[:, None] * q).norm(dim=1) + rounding
            numbers[0, part] = scale
            numbers[1, part] = (residual * (1 + 1e-6)).float()
            numbers[2, part] = (wide * q.norm(dim=1) * (1 + 1e-6)).float()
            # ... and 2**-100 for products that underflow.
            numbers[3, part] = (bias[part].double().abs() * 2.0**-20 + 2.0**-100).float()
        panels = panels.view(size // _PANEL, _PANEL, deep // _DEPTH, _DEPTH).transpose(1, 2)
        return cls(panels.contiguous(), numbers)


class PreparedWeights:
    """What `Seq2Seq.prepare_for_decoding` makes, and decoding reads.

    Attributes:
        dtype: as it was asked for.
        memory_bytes: what it takes beside the model's own weights.
    """

    def __init__(
        self, decoder: Decoder, dtype: torch.dtype, rescore_dtype: torch.dtype | None = None
    ) -> None:
        own = decoder.embedding.weight.dtype
        self.dtype = dtype
        self.wide = (rescore_dtype or torch.bfloat16) if dtype == torch.int8 else dtype
        self._check(decoder, rescore_dtype)
        self._of = _versions(decoder)
        self.decoder = decoder
        if self.wide != own:
            self.decoder = copy.deepcopy(decoder).to(self.wide).requires_grad_(False)
        with torch.no_grad():
            weight, bias = self.decoder.output_parameters()
        self.output = weight.detach().contiguous(), bias.detach().contiguous()
        self.screen = Screen.of(*self.output) if dtype == torch.int8 else None
        held = {p.data_ptr() for p in decoder.parameters()}
        parts = [*self.decoder.parameters(), *self.output, *(self.screen or ())]
        new = {t.data_ptr(): t.nbytes for t in parts if t.data_ptr() not in held}
        self.memory_bytes = sum(new.values())

    def _check(self, decoder: Decoder, rescore_dtype: torch.dtype | None) -> None:
        where = "prepare_for_decoding"
        if self.dtype not in (*DTYPES, torch.int8):
            raise ValueError(
                f"{where}: dtype must be torch.float32, torch.float64, torch.bfloat16 or "
                f"torch.int8, got {self.dtype}"
            )
        if rescore_dtype is not None and self.dtype != torch.int8:
            raise ValueError(f"{where}: rescore_dtype is for dtype torch.int8, not {self.dtype}")
        if self.dtype == torch.int8 and self.wide not in (torch.float32, torch.bfloat16):
            raise ValueError(
                f"{where}: rescore_dtype must be torch.float32 or torch.bfloat16, got {self.wide}"
            )
        device = decoder.embedding.weight.device
        if device.type != "cpu":
            raise ValueError(f"{where}: is for models on the CPU, this one is on {device}")

    def fits(self, decoder: Decoder) -> bool:
        """Whether the decoder's weights are still those that were prepared."""
        return self._of == _versions(decoder)

    def start(
        self, memory: DecoderMemory, state: DecoderState
    ) -> tuple[DecoderMemory, DecoderState]:
        """What the model's own decoder made of a source, in the dtype of these weights. Once per
        sentence everything is computed in the model's dtype."""
        from seq2seq_ext.nn.decoder import DecoderState  # it imports this package
        from seq2seq_ext.reference import state_dtype

        attention, context = memory
        if attention is not None:
            attention = attention._replace(
                keys=attention.keys.to(self.wide), values=attention.values.to(self.wide)
            )
        context = None if context is None else context.to(self.wide)
        hidden, cell, feed = state
        wide = state_dtype(self.wide)
        return memory._replace(attention=attention, context=context), DecoderState(
            tuple(h.to(self.wide) for h in hidden),
            None if cell is None else tuple(c.to(wide) for c in cell),
            None if feed is None else feed.to(self.wide),
        )


def _versions(decoder: Decoder) -> list[tuple[int, int, torch.dtype]]:
    """What changes when a weight does."""
    return [
        (p.data_ptr(), -1 if p.is_inference() else p._version, p.dtype)
        for p in decoder.parameters()
    ]
