# SPDX-License-Identifier: MIT
"""From the encoder's final state to the decoder's first: s_0 = bridge(h_1 ... h_T)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seq2seq_ext import ops
from seq2seq_ext.nn._checks import check_choice
from seq2seq_ext.nn._linear import apply_linear, masked_mean
from seq2seq_ext.nn.encoder import Encoder, EncoderOutput

BRIDGES = ("copy", "linear", "linear_tanh", "zero", "mean")


class Bridge(nn.Module):
    """Makes a decoder's initial state of what the encoder returned.

    | kind          | decoder layer l starts from                                                  |
    |---------------|------------------------------------------------------------------------------|
    | "copy"        | the encoder's layer l: directions side by side, or summed where that fits    |
    | "linear"      | W_l of the final state in the encoder's layer l (its last, if it has fewer)  |
    | "linear_tanh" | tanh of the same                                                             |
    | "mean"        | tanh(W_l mean(h_1 ... h_T))                                                  |
    | "zero"        | zeros                                                                        |

    An LSTM decoder's cell state is made in the same way by weights of its own, from the encoder's
    cell state where it is an LSTM, too, else from h ("copy": zeros). With a projection h has other
    sizes than c, at either end.

    Raises ValueError: unknown kind; "copy" between sizes that do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        kind: str,
        *,
        cell: str,
        hidden_size: int,
        num_layers: int,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_choice("Bridge", "kind", kind, BRIDGES)
        self.kind, self.hidden_size, self.num_layers = kind, hidden_size, num_layers
        self.output_size = proj_size or hidden_size  # of h; c has hidden_size
        self.is_lstm = cell == "lstm"
        self._encoder_layers, self._directions = encoder.num_layers, encoder.num_directions
        if kind == "copy":
            self._check_copy(encoder)
        elif kind != "zero":
            sizes = {"hidden": (encoder.output_size, self.output_size)}
            if self.is_lstm:
                own = kind != "mean" and encoder.cell == "lstm"
                read = encoder.num_directions * encoder.hidden_size if own else encoder.output_size
                sizes["cell"] = (read, hidden_size)
            for name, (read, made) in sizes.items():
                layers = [
                    nn.Linear(read, made, device=device, dtype=dtype) for _ in range(num_layers)
                ]
                self.add_module(name, nn.ModuleList(layers))

    def _check_copy(self, encoder: Encoder) -> None:
        if encoder.num_layers != self.num_layers:
            raise ValueError(
                "Bridge: 'copy' needs as many encoder as decoder layers, got "
                f"{encoder.num_layers} and {self.num_layers}; 'linear_tanh' takes any sizes"
            )
        directions = encoder.num_directions
        output = encoder.output_size // directions
        states = [("proj_size" if self.output_size < self.hidden_size else "hidden_size", output)]
        sizes = [self.output_size]
        if self.is_lstm and encoder.cell == "lstm":
            states.append(("hidden_size", encoder.hidden_size))
            sizes.append(self.hidden_size)
        for (name, each), size in zip(states, sizes, strict=True):
            if size not in (directions * each, each):
                raise ValueError(
                    f"Bridge: 'copy' needs the decoder's {name} to be {directions * each} (the "
                    f"encoder's directions side by side) or {each} (summed), "
                    f"got {size}; 'linear_tanh' takes any sizes"
                )

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"

    def forward(
        self, encoded: EncoderOutput, *, invariant: bool = False
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """Returns h (B, P) and, for an LSTM decoder, c (B, H), each a tuple of one a layer."""
        if self.kind == "zero":
            zeros = self._zeros(encoded, self.output_size)
            return zeros, self._zeros(encoded, self.hidden_size) if self.is_lstm else None
        if self.kind == "copy":
            hidden = self._copy(encoded.hidden, self.output_size)
            if not self.is_lstm:
                return hidden, None
            if encoded.cell is None:
                return hidden, self._zeros(encoded, self.hidden_size)
            return hidden, self._copy(encoded.cell, self.hidden_size)
        sources = self._sources(encoded, encoded.hidden, invariant)
        hidden = self._map("hidden", sources, invariant)
        if not self.is_lstm:
            return hidden, None
        if self.kind != "mean" and encoded.cell is not None:
            sources = self._sources(encoded, encoded.cell, invariant)
        return hidden, self._map("cell", sources, invariant)

    def _zeros(self, encoded: EncoderOutput, size: int) -> tuple[Tensor, ...]:
        zeros = encoded.outputs.new_zeros(encoded.outputs.size(0), size)
        return (zeros,) * self.num_layers

    def _by_layer(self, state: Tensor) -> list[Tensor]:
        """(L*D, B, size) -> for each layer (B, D, size)."""
        rows = state.unflatten(0, (self._encoder_layers, self._directions))
        return [layer.transpose(0, 1) for layer in rows]

    def _copy(self, state: Tensor, size: int) -> tuple[Tensor, ...]:
        fits = size == self._directions * state.size(-1)
        return tuple(layer.flatten(1) if fits else layer.sum(1) for layer in self._by_layer(state))

    def _sources(self, encoded: EncoderOutput, state: Tensor, invariant: bool) -> list[Tensor]:
        """What each decoder layer's linear map reads: (B, D * the state's size) each."""
        if self.kind == "mean":
            return [mean_output(encoded, invariant=invariant)] * self.num_layers
        layers = [layer.flatten(1) for layer in self._by_layer(state)]
        return [layers[min(i, len(layers) - 1)] for i in range(self.num_layers)]

    def _map(self, name: str, sources: list[Tensor], invariant: bool) -> tuple[Tensor, ...]:
        tanh = self.kind != "linear"
        return tuple(
            apply_linear(linear, source, tanh=tanh, invariant=invariant)
            for linear, source in zip(getattr(self, name), sources, strict=True)
        )


def mean_output(encoded: EncoderOutput, *, invariant: bool = False) -> Tensor:
    """mean(h_1 ... h_T), (B, D*P)."""
    if not invariant:
        return masked_mean(encoded.outputs, encoded.lengths)
    # Attention with equal scores: the kernel's sums do not depend on the padding, those of a plain
    # sum may.
    batch, size, _ = encoded.outputs.shape
    query = encoded.outputs.new_zeros(batch, 1)
    keys = encoded.outputs.new_zeros(batch, size, 1)
    return ops.attention_step(query, keys, encoded.outputs, lengths=encoded.lengths)[0]


def last_output(encoded: EncoderOutput, directions: int) -> Tensor:
    """The last layer's final state, directions side by side: (B, D*P)."""
    return encoded.hidden[-directions:].transpose(0, 1).flatten(1)
