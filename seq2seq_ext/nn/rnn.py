# SPDX-License-Identifier: MIT
"""`LSTM`, `GRU` and `RNN`: drop-in for the torch.nn modules of the same names.

Same constructor, parameter names, state dict, input forms and errors. They derive from
`torch.nn.RNNBase` and not from `torch.nn.LSTM` and so on, on which `torch.compile` breaks the
graph: with these it does not. So `isinstance(m, torch.nn.LSTM)` is False, and `torch.jit.script` is
not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seq2seq_ext import ops
from seq2seq_ext.nn._checks import as_lengths
from seq2seq_ext.nn._packing import pack_padded, pad_packed
from seq2seq_ext.nn.freezing import Frozen

States = tuple[Tensor, ...]  # (h,) or, for the LSTM, (h, c)


class _Recurrent(nn.RNNBase):
    """What the three have in common: input forms, layers, directions. A subclass names its op."""

    # Whether `step` runs a sequence of length one: it sums as decoding from packed weights does,
    # while a step's kernel, which reads them as they are, does so in another order.
    steps_as_sequences = False
    _frozen: Frozen | None = None

    def _sequence(
        self, x: Tensor, states: States, weights: States, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        """One layer, all directions: x (T, B, I), states (D, B, .) -> y (T, B, D*P), states."""
        raise NotImplementedError

    def _step(self, x: Tensor, states: States, weights: States) -> States:
        """One layer, one step: x (B, I), states (B, .) -> states."""
        raise NotImplementedError

    def flatten_parameters(self) -> None:
        """Does nothing: the kernels take each parameter as it is."""

    def layer_weights(self, layer: int) -> States:
        """The parameters of one layer, forward direction first, in the order the ops take them."""
        count = len(self._flat_weights_names) // self.num_layers
        names = self._flat_weights_names[layer * count : (layer + 1) * count]
        # By name and not from `_flat_weights`: functional_call and parametrizations replace
        # attributes.
        return tuple(getattr(self, name) for name in names)

    def frozen_names(self) -> list[list[str]]:
        """What `freeze` is about, by layer and direction: w_ih, w_hh and, if projected, w_hr."""
        per = len(self._flat_weights_names) // (self.num_layers * self._directions)
        found = []
        for first in range(0, len(self._flat_weights_names), per):
            names = self._flat_weights_names[first : first + per]
            found.append(names[:2] + (names[-1:] if self.proj_size > 0 else []))
        return found

    def _thaw_if_changed(self) -> None:
        if self._frozen is None or torch.compiler.is_compiling():
            return
        if not self._frozen.unchanged():
            self._frozen = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._frozen = None  # `to` and its like put other memory under the parameters
        return super()._apply(fn, recurse)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    # -- checks: the same statements as torch.nn ---------------------------------------------------

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        dtype = getattr(self, self._flat_weights_names[0]).dtype
        if input.dtype != dtype and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {input.size(-1)}"
            )

    def _check_state_dims(self, hx: States, batched: bool) -> None:
        expected = 3 if batched else 2
        if any(state.dim() != expected for state in hx):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            got = ", ".join(f"{state.dim()}-D" for state in hx)
            if len(hx) == 1:
                raise RuntimeError(
                    f"For {kind} input, hx should also be {expected}-D but got {got} tensor"
                )
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {expected}-D but got ({got}) tensors"
            )

    def _check_state_sizes(self, hx: States, batch: int) -> None:
        rows = self.num_layers * self._directions
        expected = [(rows, batch, self._output_size), (rows, batch, self.hidden_size)]
        for i, state in enumerate(hx):
            what = f"hidden[{i}]" if len(hx) == 2 else "hidden"
            self.check_hidden_size(state, expected[i], f"Expected {what} size {{}}, got {{}}")

    def _zero_states(self, x: Tensor, batch: int) -> States:
        rows = self.num_layers * self._directions
        h = x.new_zeros(rows, batch, self._output_size)
        return (h, x.new_zeros(rows, batch, self.hidden_size)) if self.mode == "LSTM" else (h,)

    # -- forward -----------------------------------------------------------------------------------

    def _run(
        self,
        input: Tensor | PackedSequence,
        hx: States | None,
        lengths: Tensor | Sequence[int] | None,
    ) -> tuple[Any, States]:
        name = type(self).__name__
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(f"{name}: a PackedSequence has lengths; lengths must be None")
            return self._run_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if hx is not None:
            self._check_state_dims(hx, batched)
        if not batched:
            if lengths is not None:
                raise ValueError(f"{name}: lengths must be None for unbatched 2-D input")
            x = input.unsqueeze(1)
            hx = None if hx is None else tuple(state.unsqueeze(1) for state in hx)
        else:
            x = input.transpose(0, 1) if self.batch_first else input  # a view: the ops take strides
        self.check_input(x, None)
        batch = x.size(1)
        if hx is None:
            hx = self._zero_states(x, batch)
        else:
            self._check_state_sizes(hx, batch)
        if lengths is not None:
            lengths = as_lengths(name, "lengths", lengths, batch, x.device)
        y, states = self._layers(x, hx, lengths)
        if not batched:
            return y.squeeze(1), tuple(state.squeeze(1) for state in states)
        return (y.transpose(0, 1) if self.batch_first else y), states

    def _run_packed(
        self, packed: PackedSequence, hx: States | None
    ) -> tuple[PackedSequence, States]:
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        self.check_input(data, batch_sizes)
        batch = int(batch_sizes[0])
        # The rows stay in the packed order, by descending length, from here to the end.
        x, lengths = pad_packed(data, batch_sizes, batch)
        if hx is None:
            hx = self._zero_states(data, batch)
        else:
            self._check_state_dims(hx, True)
            self._check_state_sizes(hx, batch)
            hx = _permute(hx, sorted_indices)
        y, states = self._layers(x, hx, lengths.to(x.device))
        y = pack_padded(y, lengths, batch_sizes, data)
        output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return output, _permute(states, unsorted_indices)

    def _layers(self, x: Tensor, hx: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        self._thaw_if_changed()
        directions = self._directions
        finals: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.training and self.dropout > 0:
                x = F.dropout(x, self.dropout)
            states = tuple(s[layer * directions : (layer + 1) * directions] for s in hx)
            x, states = self._sequence(x, states, self.layer_weights(layer), lengths)
            finals.append(states)
        if self.num_layers == 1:
            return x, finals[0]
        return x, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))

    def _run_step(self, x: Tensor, hx: Sequence[Sequence[Tensor]]) -> tuple[Tensor, list[States]]:
        name = type(self).__name__
        if self.bidirectional:
            raise ValueError(f"{name}.step: a bidirectional {name} cannot run step by step")
        if len(hx) != self.num_layers:
            raise ValueError(
                f"{name}.step: hx must hold {self.num_layers} layers of states, got {len(hx)}"
            )
        self._thaw_if_changed()
        finals = []
        for layer, states in enumerate(hx):
            if layer > 0 and self.training and self.dropout > 0:
                x = F.dropout(x, self.dropout)
            weights = self.layer_weights(layer)
            if self.steps_as_sequences:
                y, ends = self._sequence(x[None], tuple(s[None] for s in states), weights, None)
                out = (y[0], *(s[0] for s in ends[1:]))
            else:
                out = self._step(x, tuple(states), weights)
            finals.append(out)
            x = out[0]
        return x, finals


def _permute(states: States, order: Tensor | None) -> States:
    if order is None:
        return states
    return tuple(state.index_select(1, order) for state in states)


class LSTM(_Recurrent):
    """Long short-term memory, in place of `torch.nn.LSTM`: the same constructor.

    Args of forward:
        input: (T, B, I), with batch_first (B, T, I), unbatched (T, I), or a PackedSequence.
        hx: (h_0 (L*D, B, P), c_0 (L*D, B, H)), unbatched without B; None: zeros. P is proj_size, or
            H without one.
        lengths: (B,) int64 tensor or sequence of ints, 0 <= length <= T, in any order; for batched
            padded input (an addition to torch.nn). The output is zero past each row's length, the
            final states are those at each row's end, and the reverse direction starts there.

    Returns:
        output (T, B, D*P) in the form of the input, and (h_n, c_n) in the form of hx.

    Raises ValueError, RuntimeError, TypeError: wrong shapes, sizes, dtypes; in torch.nn's words
    where it has them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def _sequence(
        self, x: Tensor, states: States, weights: States, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        y, h_n, c_n = ops.lstm_sequence(x, states[0], states[1], weights, lengths=lengths)
        if c_n.dtype != h_n.dtype and torch.is_autocast_enabled(x.device.type):
            c_n = c_n.to(h_n.dtype)  # as torch.nn returns it
        return y, (h_n, c_n)

    def _step(self, x: Tensor, states: States, weights: States) -> States:
        return ops.lstm_step(x, states[0], states[1], weights)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"LSTM: hx must be a pair (h_0, c_0), got {type(hx).__name__}")
        output, (h_n, c_n) = self._run(input, None if hx is None else tuple(hx), lengths)
        return output, (h_n, c_n)

    def step(
        self, x: Tensor, hx: tuple[Sequence[Tensor], Sequence[Tensor]]
    ) -> tuple[Tensor, tuple[States, States]]:
        """One time step through all layers.

        Args:
            x: (B, I).
            hx: h and c, each a (L, B, .) tensor or L tensors (B, .).

        Returns:
            output (B, P) and (h, c), each a tuple of L tensors.
        """
        y, states = self._run_step(x, list(zip(*hx, strict=True)))
        h, c = zip(*states, strict=True)
        return y, (h, c)


class _Plain(_Recurrent):
    """A cell whose state is h alone."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, Tensor]:
        if hx is not None and not isinstance(hx, Tensor):
            raise TypeError(
                f"{type(self).__name__}: hx must be a tensor h_0, got {type(hx).__name__}"
            )
        output, (h_n,) = self._run(input, None if hx is None else (hx,), lengths)
        return output, h_n

    def step(self, x: Tensor, hx: Sequence[Tensor]) -> tuple[Tensor, States]:
        """One time step through all layers.

        Args:
            x: (B, I).
            hx: h, a (L, B, H) tensor or L tensors (B, H).

        Returns:
            output (B, H) and h, a tuple of L tensors.
        """
        y, states = self._run_step(x, [(h,) for h in hx])
        return y, tuple(h for (h,) in states)


def _refuse_proj_size(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")


class GRU(_Plain):
    """Gated recurrent unit, in place of `torch.nn.GRU`: the same constructor.

    forward: as for `LSTM`, but hx is h_0 (L*D, B, H) alone, and so is the final state.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_proj_size(kwargs)
        super().__init__("GRU", *args, **kwargs)

    def _sequence(
        self, x: Tensor, states: States, weights: States, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        y, h_n = ops.gru_sequence(x, states[0], weights, lengths=lengths)
        return y, (h_n,)

    def _step(self, x: Tensor, states: States, weights: States) -> States:
        return (ops.gru_step(x, states[0], weights),)


class RNN(_Plain):
    """Elman network with tanh or relu, in place of `torch.nn.RNN`: the same constructor.

    forward: as for `LSTM`, but hx is h_0 (L*D, B, H) alone, and so is the final state.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_proj_size(kwargs)
        if len(args) > 3:  # torch.nn.RNN's fourth positional argument
            nonlinearity, args = args[3], args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__("RNN_TANH" if nonlinearity == "tanh" else "RNN_RELU", *args, **kwargs)
        self.nonlinearity = nonlinearity

    def _sequence(
        self, x: Tensor, states: States, weights: States, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        y, h_n = ops.rnn_sequence(
            x, states[0], weights, nonlinearity=self.nonlinearity, lengths=lengths
        )
        return y, (h_n,)

    def _step(self, x: Tensor, states: States, weights: States) -> States:
        return (ops.rnn_step(x, states[0], weights, nonlinearity=self.nonlinearity),)
