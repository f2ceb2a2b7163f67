# SPDX-License-Identifier: MIT
"""Argument checks for the paths that do not pass through C++: the reference and the fake kernels.

The same checks with the same words stand in csrc/bindings, where a call costs less. tests/ops
holds both to one table of messages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
# Values a cell keeps per unit and step for its backward (csrc/kernels/common/params.h).
NUM_SAVED = {"lstm": 4, "gru": 4, "rnn": 1}
_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def fail(argument: str, expected: object, got: object) -> NoReturn:
    raise ValueError(f"{argument}: expected {expected}, got {got}")


def _tuple(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _shape_of(tensor: Tensor) -> str:
    return f"shape {_tuple(tensor.shape)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(argument: str, tensor: Tensor, expected: Sequence[int]) -> None:
    if tensor.dim() != len(expected) or any(
        a != b for a, b in zip(tensor.shape, expected, strict=True)
    ):
        fail(argument, f"shape {_tuple(expected)}", _shape_of(tensor))


def _device(argument: str, tensor: Tensor, first: Tensor, name: str) -> None:
    if tensor.device != first.device:
        fail(argument, f"{name}'s device {first.device}", tensor.device)


def like(argument: str, tensor: Tensor, first: Tensor, name: str) -> None:
    """Same dtype and device as the first argument."""
    if tensor.dtype != first.dtype:
        fail(argument, f"{name}'s dtype {_name(first.dtype)}", _name(tensor.dtype))
    _device(argument, tensor, first, name)


def _dims(argument: str, tensor: Tensor, letters: str) -> None:
    count = letters.count(",") + 1
    if tensor.dim() != count:
        fail(argument, f"{count} dimensions ({letters})", _shape_of(tensor))


def _floating(argument: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATING:
        fail(argument, "dtype float32, float64, bfloat16 or float16", _name(tensor.dtype))


def _first(argument: str, tensor: Tensor, letters: str) -> None:
    """An argument that brings sizes of its own; all but the batch must be at least 1."""
    _dims(argument, tensor, letters)
    _floating(argument, tensor)
    for letter, size in zip(letters.split(", "), tensor.shape, strict=True):
        if letter != "B" and size < 1:
            fail(argument, f"{letter} >= 1", _shape_of(tensor))


def _state(argument: str, tensor: Tensor, first: Tensor, name: str) -> None:
    """The first argument's dtype or the state dtype, and its device."""
    state = torch.float64 if first.dtype == torch.float64 else torch.float32
    if tensor.dtype not in (first.dtype, state):
        also = "" if state == first.dtype else " or float32"
        fail(argument, f"{name}'s dtype {_name(first.dtype)}{also}", _name(tensor.dtype))
    _device(argument, tensor, first, name)


def _lengths(lengths: Tensor | None, first: Tensor, name: str, batch: int) -> None:
    if lengths is None:
        return
    if lengths.dtype != torch.int64:
        fail("lengths", "dtype int64", _name(lengths.dtype))
    _device("lengths", lengths, first, name)
    _shape("lengths", lengths, (batch,))


def _readable(tensor: Tensor) -> bool:
    """Whether values can be read: not of fake tensors, nor of those in a torch.func transform."""
    if torch.compiler.is_compiling():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def lengths_values(lengths: Tensor | None, limit: int) -> None:
    if lengths is None or not _readable(lengths):
        return
    for row, length in enumerate(lengths.tolist()):
        if not 0 <= length <= limit:
            fail(f"lengths[{row}]", f"0 to {limit}", length)


def _weights(
    cell: str, weights: Sequence[Tensor], x: Tensor, directions: int, name: str, h: Tensor
) -> int:
    """Checks the flat list of weights and returns H. `name`: what the caller calls `h`."""
    inputs, outputs = x.shape[-1], h.shape[-1]
    if outputs < 1:
        fail(name, "P >= 1", _shape_of(h))
    per = len(weights) // directions
    allowed = (2, 3, 4, 5) if cell == "lstm" else (2, 4)
    if per not in allowed or per * directions != len(weights):
        numbers = "2, 3, 4 or 5" if cell == "lstm" else "2 or 4"
        fail("weights", f"{numbers} tensors per direction", f"{len(weights)} for {directions}")
    gates, first = NUM_GATES[cell], weights[0]
    rows = first.shape[0] if first.dim() == 2 else 0
    hidden = rows // gates
    if rows < 1 or rows != hidden * gates:
        fail("weights[0] (w_ih)", f"shape ({gates}*H, {inputs})", _shape_of(first))
    projected = per in (3, 5)
    if not projected and outputs != hidden:
        fail(name, f"last dimension {hidden}", outputs)
    roles = ["w_ih", "w_hh"] + (["b_ih", "b_hh"] if per >= 4 else []) + ["w_hr"] * projected
    shapes = {
        "w_ih": (rows, inputs),
        "w_hh": (rows, outputs),
        "b_ih": (rows,),
        "b_hh": (rows,),
        "w_hr": (outputs, hidden),
    }
    for n, weight in enumerate(weights):
        role = roles[n % per]
        like(f"weights[{n}] ({role})", weight, x, "x")
        _shape(f"weights[{n}] ({role})", weight, shapes[role])
    return hidden


def sequence(
    cell: str,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
) -> int:
    """Checks a sequence op's arguments, but not the values of `lengths`; returns H."""
    _first("x", x, "T, B, I")
    like("h0", h0, x, "x")
    _dims("h0", h0, "D, B, P")
    directions, _, outputs = h0.shape
    batch = x.shape[1]
    if directions not in (1, 2):
        fail("h0", "1 or 2 directions (D, B, P)", _shape_of(h0))
    _shape("h0", h0, (directions, batch, outputs))
    if reverse and directions == 2:
        fail("reverse", "False with two directions", "True")
    hidden = _weights(cell, weights, x, directions, "h0", h0)
    if c0 is not None:
        _state("c0", c0, x, "x")
        _shape("c0", c0, (directions, batch, hidden))
    _lengths(lengths, x, "x", batch)
    return hidden


def step(cell: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Sequence[Tensor]) -> int:
    """Checks a step op's arguments; returns H."""
    _first("x", x, "B, I")
    like("h", h, x, "x")
    _dims("h", h, "B, P")
    batch = x.shape[0]
    _shape("h", h, (batch, h.shape[1]))
    hidden = _weights(cell, weights, x, 1, "h", h)
    if c is not None:
        _state("c", c, x, "x")
        _shape("c", c, (batch, hidden))
    return hidden


def attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor | None,
    additive: bool,
    w_query: Tensor | None,
    v: Tensor | None,
) -> None:
    _first("query", query, "B, Q")
    _first("keys", keys, "B, S, A")
    _first("values", values, "B, S, C")
    batch, queries = query.shape
    _, source, size = keys.shape
    like("keys", keys, query, "query")
    _shape("keys", keys, (batch, source, size))
    like("values", values, query, "query")
    _shape("values", values, (batch, source, values.shape[2]))
    if w_query is not None:
        like("w_query", w_query, query, "query")
        _shape("w_query", w_query, (size, queries))
    elif queries != size:
        fail("query", f"last dimension {size} (no w_query)", queries)
    if additive and v is None:
        fail("v", "a tensor, as score is 'additive'", "None")
    if not additive and v is not None:
        fail("v", "None, as score is 'dot'", "a tensor")
    if v is not None:
        like("v", v, query, "query")
        _shape("v", v, (size,))
    _lengths(lengths, query, "query", batch)


def _integers(argument: str, tensor: Tensor, dtype: torch.dtype, hidden: Tensor) -> None:
    if tensor.dtype != dtype:
        fail(argument, f"dtype {_name(dtype)}", _name(tensor.dtype))
    _device(argument, tensor, hidden, "hidden")


def vocab(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    k: int = 1,
    banned: Tensor | None = None,
) -> None:
    _first("hidden", hidden, "B, H")
    like("weight", weight, hidden, "hidden")
    _dims("weight", weight, "V, H")
    words = weight.shape[0]
    _shape("weight", weight, (words, hidden.shape[1]))
    if bias is not None:
        like("bias", bias, hidden, "hidden")
        _shape("bias", bias, (words,))
    if banned is not None:
        _integers("banned", banned, torch.int32, hidden)
        _shape("banned", banned, (hidden.shape[0], (words + 31) // 32))
    if not 1 <= k <= words:
        fail("k", f"1 to V = {words}", k)


def draw(hidden: Tensor, seed: Tensor, step: Tensor, rows: Tensor | None) -> None:
    """Checks what vocab_sample takes beside vocab_pick's arguments."""
    for argument, tensor in (("seed", seed), ("step", step)):
        _integers(argument, tensor, torch.int64, hidden)
        if tensor.numel() != 1:
            fail(argument, "one element", _shape_of(tensor))
    if rows is not None:
        _integers("rows", rows, torch.int64, hidden)
        _shape("rows", rows, (hidden.shape[0],))


def temperature(value: float) -> None:
    if not 0 < value < math.inf:
        fail("temperature", "a positive number", value)


# What a value of another type than an argument's leads to, somewhere on the way.
TYPE_ERRORS = (AttributeError, TypeError, RuntimeError)


def types(**arguments: Any) -> None:
    """Called once something has failed: a TypeError if one of the arguments' types is why.

    A good call pays nothing for it.
    """
    for name, value in arguments.items():
        good, expected = isinstance(value, Tensor), "a tensor"
        if name == "weights":
            expected = "a list or tuple of tensors"
            good = isinstance(value, (list, tuple)) and all(isinstance(w, Tensor) for w in value)
        elif name in (
            "lengths",
            "bias",
            "w_query",
            "v",
            "class_weight",
            "banned",
            "rows",
            "panels",
        ):
            good, expected = good or value is None, "a tensor or None"
        elif name in ("k", "ignore_index"):
            good, expected = isinstance(value, int), "an int"
        elif name in ("seed", "step"):
            good, expected = good or isinstance(value, int), "a tensor or an int"
        elif name in ("scale", "label_smoothing", "temperature"):
            good, expected = isinstance(value, (int, float)), "a number"
        if not good:
            raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")


def is_relu(nonlinearity: str) -> bool:
    if nonlinearity not in ("tanh", "relu"):
        fail("nonlinearity", "'tanh' or 'relu'", repr(nonlinearity))
    return nonlinearity == "relu"


def is_additive(score: str) -> bool:
    if score not in ("dot", "additive"):
        fail("score", "'dot' or 'additive'", repr(score))
    return score == "additive"
