# SPDX-License-Identifier: MIT
"""Argument checks for the paths that do not pass through C++: the reference fallback and the fake
kernels.

The same checks with the same words stand in csrc/bindings/checks.h, where a call costs less.
tests/ops/test_errors.py holds both to one table of messages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
NUM_SAVED = {"lstm": 4, "gru": 4, "rnn": 1}
_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_NONLINEARITIES = ("tanh", "relu")
_SCORES = ("dot", "additive")


def expect(ok: bool, argument: str, expected: object, got: object) -> None:
    if not ok:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def _shape(argument: str, tensor: Tensor, expected: Sequence[int]) -> None:
    ok = tensor.dim() == len(expected) and all(
        a == b for a, b in zip(tensor.shape, expected, strict=True)
    )
    expect(ok, argument, f"shape {_tuple(expected)}", f"shape {_tuple(tensor.shape)}")


def _tuple(sizes: Sequence[int]) -> str:
    inner = ", ".join(str(int(s)) if isinstance(s, int) else str(s) for s in sizes)
    return f"({inner}{',' if len(sizes) == 1 else ''})"


def like(argument: str, tensor: Tensor, first: Tensor, name: str) -> None:
    """Same dtype and device as the first argument."""
    expect(tensor.dtype == first.dtype, argument, f"{name}'s dtype {_name(first)}", _name(tensor))
    _same_device(argument, tensor, first, name)


def _same_device(argument: str, tensor: Tensor, first: Tensor, name: str) -> None:
    expect(
        tensor.device == first.device,
        argument,
        f"{name}'s device {first.device}",
        tensor.device,
    )


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first(argument: str, tensor: Tensor, dims: str) -> None:
    """The argument that sets the dtype: a floating tensor with the dimensions that `dims` names."""
    letters = dims.split(", ")
    expect(
        tensor.dim() == len(letters),
        argument,
        f"{len(letters)} dimensions ({dims})",
        f"shape {_tuple(tensor.shape)}",
    )
    expect(
        tensor.dtype in _FLOATING,
        argument,
        "dtype float32, float64, bfloat16 or float16",
        _name(tensor),
    )
    for letter, size in zip(letters, tensor.shape, strict=True):
        if letter != "B":
            expect(size >= 1, argument, f"{letter} >= 1", f"shape {_tuple(tensor.shape)}")


def _cell_state(argument: str, c: Tensor, x: Tensor) -> None:
    state = torch.float64 if x.dtype == torch.float64 else torch.float32
    expect(
        c.dtype in (x.dtype, state),
        argument,
        f"x's dtype {_name(x)}" + ("" if state == x.dtype else " or float32"),
        _name(c),
    )
    _same_device(argument, c, x, "x")


def lengths_shape(lengths: Tensor | None, first: Tensor, name: str, batch: int) -> None:
    if lengths is None:
        return
    expect(lengths.dtype == torch.int64, "lengths", "dtype int64", _name(lengths))
    _same_device("lengths", lengths, first, name)
    _shape("lengths", lengths, (batch,))


def lengths_values(lengths: Tensor | None, limit: int) -> None:
    """Reads the values, so not for fake tensors."""
    if lengths is None:
        return
    for row, length in enumerate(lengths.tolist()):
        expect(0 <= length <= limit, f"lengths[{row}]", f"0 to {limit}", length)


def weights_of(
    cell: str, weights: Sequence[Tensor], x: Tensor, directions: int, inputs: int, outputs: int
) -> int:
    """Checks the flat list of weights and returns H."""
    per = len(weights) // directions
    allowed = (2, 3, 4, 5) if cell == "lstm" else (2, 4)
    expect(
        len(weights) == per * directions and per in allowed,
        "weights",
        f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]} tensors per direction",
        f"{len(weights)} for {directions}",
    )
    gates = NUM_GATES[cell]
    first = weights[0]
    rows = first.shape[0] if first.dim() == 2 else 0
    hidden = rows // gates
    expect(
        first.dim() == 2 and hidden >= 1 and rows == hidden * gates,
        "weights[0] (w_ih)",
        f"shape ({gates}*H, {inputs})",
        f"shape {_tuple(first.shape)}",
    )
    projected = per in (3, 5)
    if not projected:
        expect(outputs == hidden, "h", f"last dimension {hidden}", outputs)
    names = ["w_ih", "w_hh"] + (["b_ih", "b_hh"] if per >= 4 else []) + ["w_hr"] * projected
    shapes = {
        "w_ih": (rows, inputs),
        "w_hh": (rows, outputs),
        "b_ih": (rows,),
        "b_hh": (rows,),
        "w_hr": (outputs, hidden),
    }
    for n, weight in enumerate(weights):
        name = names[n % per]
        like(f"weights[{n}] ({name})", weight, x, "x")
        _shape(f"weights[{n}] ({name})", weight, shapes[name])
    return int(hidden) if isinstance(hidden, int) else hidden


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
    expect(h0.dim() == 3, "h0", "3 dimensions (D, B, P)", f"shape {_tuple(h0.shape)}")
    directions, batch, outputs = h0.shape[0], x.shape[1], h0.shape[2]
    expect(directions in (1, 2), "h0", "1 or 2 directions (D, B, P)", f"shape {_tuple(h0.shape)}")
    _shape("h0", h0, (directions, batch, outputs))
    expect(not reverse or directions == 1, "reverse", "False with two directions", "True")
    hidden = weights_of(cell, weights, x, directions, x.shape[2], outputs)
    if c0 is not None:
        _cell_state("c0", c0, x)
        _shape("c0", c0, (directions, batch, hidden))
    lengths_shape(lengths, x, "x", batch)
    return hidden


def step(cell: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Sequence[Tensor]) -> int:
    """Checks a step op's arguments; returns H."""
    _first("x", x, "B, I")
    like("h", h, x, "x")
    expect(h.dim() == 2, "h", "2 dimensions (B, P)", f"shape {_tuple(h.shape)}")
    batch, outputs = x.shape[0], h.shape[1]
    _shape("h", h, (batch, outputs))
    hidden = weights_of(cell, weights, x, 1, x.shape[1], outputs)
    if c is not None:
        _cell_state("c", c, x)
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
    source, size = keys.shape[1], keys.shape[2]
    like("keys", keys, query, "query")
    _shape("keys", keys, (batch, source, size))
    like("values", values, query, "query")
    _shape("values", values, (batch, source, values.shape[2]))
    if w_query is None:
        expect(queries == size, "query", f"last dimension {size} (no w_query)", queries)
    else:
        like("w_query", w_query, query, "query")
        _shape("w_query", w_query, (size, queries))
    if additive:
        expect(v is not None, "v", "a tensor, as score is 'additive'", "None")
        assert v is not None
        like("v", v, query, "query")
        _shape("v", v, (size,))
    else:
        expect(v is None, "v", "None, as score is 'dot'", "a tensor")
    lengths_shape(lengths, query, "query", batch)


def vocab(hidden: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> None:
    _first("hidden", hidden, "B, H")
    like("weight", weight, hidden, "hidden")
    expect(weight.dim() == 2, "weight", "2 dimensions (V, H)", f"shape {_tuple(weight.shape)}")
    _shape("weight", weight, (weight.shape[0], hidden.shape[1]))
    if bias is not None:
        like("bias", bias, hidden, "hidden")
        _shape("bias", bias, (weight.shape[0],))
    expect(1 <= k <= weight.shape[0], "k", f"1 to V = {weight.shape[0]}", k)


def nonlinearity_is_relu(nonlinearity: str) -> bool:
    expect(nonlinearity in _NONLINEARITIES, "nonlinearity", "'tanh' or 'relu'", repr(nonlinearity))
    return nonlinearity == "relu"


def score_is_additive(score: str) -> bool:
    expect(score in _SCORES, "score", "'dot' or 'additive'", repr(score))
    return score == "additive"
