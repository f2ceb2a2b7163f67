# SPDX-License-Identifier: MIT
"""`convert` puts our modules in the place of torch.nn's in one model; `revert` takes them out;
`convert_decoder` makes a `Decoder` of a decoder that was written with torch.nn.

Nothing is patched: only the instances in the model given are replaced. Parameters are shared, so
optimizers, checkpoints and tied weights stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from seq2seq_ext.convert_decoder import convert_decoder
from seq2seq_ext.nn.cells import GRUCell, LSTMCell, RNNCell
from seq2seq_ext.nn.rnn import GRU, LSTM, RNN

__all__ = ["ConversionReport", "convert", "convert_decoder", "revert"]

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Filter = Callable[[nn.Module, str], bool]


@dataclasses.dataclass
class ConversionReport:
    """What `convert` or `revert` did.

    Attributes:
        model: the model; another object than the one given only where that was itself a recurrent
            module.
        converted: (name, class before -> class after) of each module replaced; "" is the model
            itself.
        skipped: (name, class, reason) of each recurrent module that was not.
    """

    model: nn.Module
    converted: list[tuple[str, str]]
    skipped: list[tuple[str, str, str]]

    def __str__(self) -> str:
        lines = [f"converted {len(self.converted)}, skipped {len(self.skipped)}"]
        lines += [f"  {name or '(model)'}: {what}" for name, what in self.converted]
        lines += [f"  {name or '(model)'}: {what}: {why}" for name, what, why in self.skipped]
        return "\n".join(lines)


def convert(model: nn.Module, *, filter_fn: Filter | None = None) -> ConversionReport:
    """Replaces torch.nn.LSTM, GRU, RNN and their cells in `model`, in place.

    Args:
        model: any module. If it is itself one of these, take the new one from the report's `model`.
        filter_fn: called with each candidate and its name; False leaves it.

    Returns:
        A report: what was replaced, and what was not and why. Subclasses are left (their own
        forward might do something else), and so are dtypes that no kernel serves.
    """
    return _replace(model, _OURS, filter_fn)


def revert(model: nn.Module) -> ConversionReport:
    """Puts torch.nn's modules back in the place of ours, in place; the same Parameters."""
    return _replace(model, _TORCHS, None)


def _replace(
    model: nn.Module, table: dict[type[nn.Module], type[nn.Module]], filter_fn: Filter | None
) -> ConversionReport:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model must be a torch.nn.Module, got {type(model).__name__}")
    report = ConversionReport(model, [], [])
    kinds: Any = tuple(table)
    done: dict[nn.Module, nn.Module] = {}  # one module may stand in several places
    places: list[tuple[str, nn.Module | None, str, nn.Module]] = [("", None, "", model)]
    places += [
        (f"{parent_name}.{key}" if parent_name else key, parent, key, child)
        for parent_name, parent in model.named_modules()
        for key, child in parent._modules.items()
        if child is not None
    ]
    for name, parent, key, module in places:
        if not isinstance(module, kinds):
            continue
        reason = _reason_to_skip(module, name, table, filter_fn)
        if reason is not None:
            report.skipped.append((name, type(module).__name__, reason))
            continue
        if module not in done:
            done[module] = _twin(module, table[type(module)])
        new = done[module]
        if parent is None:
            report.model = new
        else:
            parent._modules[key] = new
        report.converted.append((name, f"{_title(module)} -> {_title(new)}"))
    return report


def _reason_to_skip(
    module: nn.Module,
    name: str,
    table: dict[type[nn.Module], type[nn.Module]],
    filter_fn: Filter | None,
) -> str | None:
    if type(module) not in table:
        return "a subclass, whose own forward may do something else"
    for parameter in module.parameters():
        if parameter.dtype not in _DTYPES:
            return f"no kernel for {parameter.dtype}"
    if filter_fn is not None and not filter_fn(module, name):
        return "filter_fn"
    return None


def _twin(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A `cls` with the same attributes, Parameters, hooks and mode: both have the same base."""
    twin = cls.__new__(cls)
    state: dict[str, Any] = {}
    for key, value in vars(module).items():
        state[key] = value.copy() if isinstance(value, (dict, list)) else value
    vars(twin).update(state)
    if isinstance(twin, nn.RNNBase):
        twin._init_flat_weights()
    return twin


def _title(module: nn.Module) -> str:
    return f"{type(module).__module__.split('.')[0]}.{type(module).__name__}"
