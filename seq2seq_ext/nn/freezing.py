# SPDX-License-Identifier: MIT
"""`freeze`: the promise that weights stay as they are, for inference on the CPU.

The CPU kernels keep the weights of `LSTM`, `GRU` and `RNN` packed from call to call, and compare
all of them with what was packed before every call under inference. At batch 1 that reading takes 3
to 10 % of a call. Frozen layers are spared it.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seq2seq_ext._routing import HAVE_CPU

Weights = Sequence[Tensor]  # one layer and direction: w_ih, w_hh and, if projected, w_hr
M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Freezes the weights of every `LSTM`, `GRU` and `RNN` in `module`, itself included.

    Results do not change, calls under inference get cheaper (CPU; elsewhere nothing happens). A
    layer whose weights are then changed, by an optimizer, `load_state_dict`, `copy_`, `to`, is
    frozen no longer as of its next call, which uses the new weights; other weights in their place
    (`functional_call`, a new parameter) are never taken for them. What torch does not count as a
    change goes unnoticed, and outputs remain those of the old weights: writing through `.data`, a
    NumPy view or another process, and any change at all to a layer in a compiled graph. Call
    `unfreeze` before, or `freeze` again after it. Copies of a module are not frozen.

    Returns:
        module.

    Raises:
        TypeError: not a torch.nn.Module.
        ValueError: it has no such layer, or was made under `torch.inference_mode`, in which torch
            counts no changes.
    """
    for layer in _layers(module):
        layer._frozen = Frozen(layer)
    return module


def unfreeze(module: M) -> M:
    """Takes `freeze` back. Raises as that does; layers that are not frozen stay so."""
    for layer in _layers(module):
        layer._frozen = None
    return module


def is_frozen(module: nn.Module) -> bool:
    """Whether all such layers in `module` are frozen, with the weights that they have now."""
    return all(
        layer._frozen is not None and layer._frozen.unchanged() and layer._frozen.is_of(layer)
        for layer in _layers(module)
    )


class Frozen:
    """The promise for one layer. It is kept as long as this object lives, and keeps the weights'
    memory from being used for anything else."""

    def __init__(self, layer: Any) -> None:
        given = {name: getattr(layer, name) for names in layer.frozen_names() for name in names}
        if any(w.is_inference() for w in given.values()):
            raise ValueError(
                "freeze: the weights were made under torch.inference_mode, where changes are not "
                "counted; make or clone them outside of it"
            )
        # detach: the memory as it is now, whatever the parameter is made to point to later.
        self._held = {name: w.detach() for name, w in given.items()}
        self._versions = [w._version for w in self._held.values()]
        if HAVE_CPU and all(w.is_cpu for w in self._held.values()):
            for names in layer.frozen_names():
                weights = [self._held[name] for name in names]
                if all(w.is_contiguous() for w in weights):
                    _tell(weights, True)
                    weakref.finalize(self, _tell, weights, False).atexit = False

    def unchanged(self) -> bool:
        """Whether the weights are what they were, as far as torch counts changes."""
        return [w._version for w in self._held.values()] == self._versions

    def is_of(self, layer: Any) -> bool:
        """Whether the layer has no other weights."""
        return all(w.is_set_to(getattr(layer, name)) for name, w in self._held.items())

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()


def _nothing() -> None:
    return None


def _tell(weights: Weights, frozen: bool) -> None:
    addresses = [w.data_ptr() for w in weights]
    _function()(*addresses, *[None] * (3 - len(addresses)), frozen)


@functools.cache
def _function() -> Callable[..., None]:
    # Not an op itself: a mode of torch that is on when a layer is collected would catch it.
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int)
    return kind(torch.ops.seq2seq_ext.weight_freezer())


def _layers(module: nn.Module) -> list[Any]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: a torch.nn.Module, got {type(module).__name__}")
    layers = [m for m in module.modules() if hasattr(m, "frozen_names")]
    if not layers:
        raise ValueError(f"module: {type(module).__name__} has no LSTM, GRU or RNN of seq2seq_ext")
    return layers
