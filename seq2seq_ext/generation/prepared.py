# SPDX-License-Identifier: MIT
"""A model's weights as decoding reads them: in a narrower dtype, packed, or screened in int8."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq_ext import ops
from seq2seq_ext.generation import huge_pages

if TYPE_CHECKING:
    from seq2seq_ext.nn.decoder import Decoder
    from seq2seq_ext.nn.encoder import Encoder

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


class Panels(NamedTuple):
    """The weights that a step multiplies by, packed: see `ops.pack_panels`."""

    # w_ih, w_hh and w_hr of each layer, then with attention w_ih and w_hh of `combine`.
    recurrent: list[Tensor]
    output: Tensor | None  # None: it is screened in int8, and read as it is where it is not

    @classmethod
    def of(cls, decoder: Decoder, output: Tensor | None) -> Panels | None:
        """None: there is no library to read them."""
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[decoder.cell]
        weights = []
        for layer in range(decoder.num_layers):
            matrices = [w for w in decoder.rnn.layer_weights(layer) if w.dim() == 2]
            weights += list(zip(matrices, (gates, gates, 1), strict=False))
        if decoder.attention is not None:
            weights += [(decoder.combine.weight_ih, 1), (decoder.combine.weight_hh, 1)]
        packed = [ops.pack_panels(weight, count) for weight, count in weights]
        if any(panels is None for panels in packed):
            return None
        recurrent = [panels for panels in packed if panels is not None]
        return cls(recurrent, None if output is None else ops.pack_panels(output))


class PreparedWeights:
    """What `Seq2Seq.prepare_for_decoding` makes, and decoding reads.

    Attributes:
        dtype: as it was asked for.
        memory_bytes: what it takes beside the model's own weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        dtype: torch.dtype,
        rescore_dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        self.wide = (rescore_dtype or torch.bfloat16) if dtype == torch.int8 else dtype
        self._check(decoder, rescore_dtype)
        self._of = _versions(encoder, decoder)
        self.encoder, self.decoder = _in(encoder, self.wide), _in(decoder, self.wide)
        # The loop in Python is to find the same bits.
        self.decoder.rnn.steps_as_sequences = True
        if self.decoder.attention is not None:
            self.decoder.combine.steps_as_sequences = True
        with torch.no_grad():
            weight, bias = self.decoder.output_parameters()
            self.output = weight.detach().contiguous(), bias.detach().contiguous()
            screen = Screen.of(*self.output) if dtype == torch.int8 else None
            panels = Panels.of(self.decoder, None if screen else self.output[0])
            self.screen, self.panels = _moved(screen, panels)
        own = [*encoder.parameters(), *decoder.parameters()]
        held = {p.data_ptr() for p in own}
        parts = [*self.encoder.parameters(), *self.decoder.parameters(), *self.output]
        parts += self.screen or ()
        if self.panels is not None:
            parts += self.panels.recurrent
            parts += [] if self.panels.output is None else [self.panels.output]
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

    def fits(self, encoder: Encoder, decoder: Decoder) -> bool:
        """Whether the model's weights are still those that were prepared."""
        return self._of == _versions(encoder, decoder)


def _moved(screen: Screen | None, panels: Panels | None) -> tuple[Screen | None, Panels | None]:
    """What a step reads from end to end, in huge pages."""
    recurrent = [] if panels is None else panels.recurrent
    output = [] if panels is None or panels.output is None else [panels.output]
    moved = huge_pages.moved([*recurrent, *output, *(screen or ())])
    if panels is not None:
        whole = moved[len(recurrent)] if output else None
        panels = Panels(moved[: len(recurrent)], whole)
    if screen is not None:
        screen = Screen(*moved[-len(screen) :])
    return screen, panels


def _in(module: Any, dtype: torch.dtype) -> Any:
    """The module, to be changed at will, with weights of a dtype: its own where they are of it."""
    parameters = list(module.parameters())
    if all(parameter.dtype == dtype for parameter in parameters):
        return copy.deepcopy(module, {id(p): p for p in parameters}).eval()
    return copy.deepcopy(module).to(dtype).requires_grad_(False).eval()


def _versions(*modules: nn.Module) -> list[tuple[int, int, torch.dtype]]:
    """What changes when a weight does."""
    return [
        (p.data_ptr(), -1 if p.is_inference() else p._version, p.dtype)
        for module in modules
        for p in module.parameters()
    ]
