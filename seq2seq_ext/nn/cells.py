# SPDX-License-Identifier: MIT
"""`LSTMCell`, `GRUCell` and `RNNCell`: drop-in for the torch.nn cells of the same names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seq2seq_ext import ops


class _Cell(nn.RNNCellBase):
    """Shared by the three: torch.nn's input forms and its checks, in its words."""

    steps_as_sequences = False  # see _Recurrent

    def _weights(self) -> tuple[Tensor, ...]:
        if not self.bias:
            return self.weight_ih, self.weight_hh
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _prepare(
        self, input: Tensor, hx: tuple[Tensor, ...] | None, num_states: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (B, I) and states (B, H), all batched."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for i, state in enumerate(hx or ()):
            if state.dim() not in (1, 2):
                what = f"hx[{i}]" if num_states == 2 else "hidden"
                raise ValueError(
                    f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if x.size(1) != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.size(1)} expected {self.input_size}"
            )
        if hx is None:
            zeros = x.new_zeros(x.size(0), self.hidden_size)
            return x, (zeros,) * num_states
        states = hx if batched else tuple(state.unsqueeze(0) for state in hx)
        for i, state in enumerate(states):
            if state.dim() != 2:
                raise RuntimeError(
                    f"{name}: hidden{i} must have as many dimensions as input, "
                    f"got {state.dim() - (not batched)} for {input.dim()}"
                )
            if state.size(1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: "
                    f"got {state.size(1)}, expected {self.hidden_size}"
                )
            if state.size(0) != x.size(0):
                raise RuntimeError(
                    f"Input batch size {x.size(0)} doesn't match "
                    f"hidden{i} batch size {state.size(0)}"
                )
        return x, states


class LSTMCell(_Cell):
    """Long short-term memory cell, in place of `torch.nn.LSTMCell`: the same constructor.

    Args of forward:
        input: (B, I) or (I).
        hx: (h (B, H), c (B, H)) or without B; None: zeros.

    Returns (h, c) after the step. The fused step runs where no gradients are asked for, else a
    sequence of length 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"LSTMCell: hx must be a pair (h, c), got {type(hx).__name__}")
        x, (h, c) = self._prepare(input, None if hx is None else tuple(hx), 2)
        h, c = ops.lstm_step(x, h, c, self._weights())
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(_Cell):
    """Gated recurrent unit cell, in place of `torch.nn.GRUCell`: the same constructor.

    Args of forward:
        input: (B, I) or (I).
        hx: (B, H) or (H); None: zeros.

    Returns h after the step. The fused step runs where no gradients are asked for, else a sequence
    of length 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        x, (h,) = self._prepare(input, None if hx is None else (hx,), 1)
        h = ops.gru_step(x, h, self._weights())
        return h if input.dim() == 2 else h.squeeze(0)


class RNNCell(_Cell):
    """Elman cell with tanh or relu, in place of `torch.nn.RNNCell`: the same constructor.

    Args of forward:
        input: (B, I) or (I).
        hx: (B, H) or (H); None: zeros.

    Returns h after the step. The fused step runs where no gradients are asked for, else a sequence
    of length 1.
    """

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]  # noqa: RUF012

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        x, (h,) = self._prepare(input, None if hx is None else (hx,), 1)
        if self.steps_as_sequences:
            _, h_n = ops.rnn_sequence(
                x[None], h[None], self._weights(), nonlinearity=self.nonlinearity
            )
            h = h_n[0]
        else:
            h = ops.rnn_step(x, h, self._weights(), nonlinearity=self.nonlinearity)
        return h if input.dim() == 2 else h.squeeze(0)
