# SPDX-License-Identifier: MIT
"""Sequence forward, backward and step. Gradients in float64 are judged by finite differences of the
oracle, those in other dtypes by the float64 ones."""

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from oracle import DTYPES, decode, encode

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass
class Problem:
    """Everything a sequence kernel reads, in float64 but exact in `dtype`."""

    cell: str
    dtype: str
    x: np.ndarray
    h0: np.ndarray
    c0: np.ndarray | None
    weights: list[tuple]
    lengths: np.ndarray | None
    reverse: list[bool]

    def options(self):
        return {"lengths": self.lengths, "reverse": self.reverse}

    def encoded(self):
        """Arguments of `_kernels.sequence_forward` in `dtype`."""
        weights = [
            tuple(None if w is None else encode(w, self.dtype) for w in direction)
            for direction in self.weights
        ]
        c0 = None if self.c0 is None else oracle.state(self.c0, self.dtype)
        arrays = (self.cell, encode(self.x, self.dtype), encode(self.h0, self.dtype), weights)
        return arrays, self.options() | {"c0": c0}


def problem(
    rng,
    cell,
    dtype,
    *,
    T=5,
    B=3,
    I=7,  # noqa: E741
    H=7,
    P=None,
    lengths=None,
    reverse=(False,),
    bias=True,
):
    D, G = len(reverse), GATES[cell]

    def draw(*shape, scale=1.0):
        return decode(encode(rng.standard_normal(shape) * scale, dtype))

    weights = [
        (
            draw(G * H, I, scale=I**-0.5),
            draw(G * H, P or H, scale=(P or H) ** -0.5),
            draw(G * H) if bias else None,
            draw(G * H) if bias else None,
            draw(P, H, scale=H**-0.5) if P else None,
        )
        for _ in range(D)
    ]
    c0 = draw(D, B, H) if cell == "lstm" else None
    return Problem(
        cell, dtype, draw(T, B, I), draw(D, B, P or H), c0, weights,
        None if lengths is None else np.array(lengths), list(reverse),
    )  # fmt: skip


def forward(kernels, p, **options):
    arguments, rest = p.encoded()
    return kernels.sequence_forward(*arguments, **rest, **options)


def assert_forward_right(kernels, p, **options):
    found = forward(kernels, p, **options)
    y, h_n, c_n = oracle.sequence(p.cell, p.x, p.h0, p.weights, c0=p.c0, **p.options())
    # Rounding of h in every step comes back through w_hh; gates and cells are of order one.
    error = 4 * oracle.ROUNDING[p.dtype] + 40 * oracle.EPSILON[p.dtype]
    grown = error * (1 + np.sqrt(len(p.x))) * max(1.0, np.abs(y).max(initial=0))
    np.testing.assert_allclose(decode(found["y"]), y, rtol=0, atol=grown)
    np.testing.assert_allclose(decode(found["h_n"]), h_n, rtol=0, atol=grown)
    if c_n is not None:
        np.testing.assert_allclose(
            found["c_n"], c_n, rtol=0, atol=grown * max(1, np.abs(c_n).max(initial=0))
        )
    return found


VARIANTS = [
    {},
    {"bias": False},
    {"reverse": (True,)},
    {"reverse": (False, True), "lengths": [3, 0, 5]},
    {"lengths": [1, 5, 2], "reverse": (True,)},
    {"T": 1, "B": 1, "I": 1, "H": 1},
    {"T": 2, "B": 17, "I": 65, "H": 63},
    {"T": 3, "B": 2, "I": 63, "H": 65, "reverse": (False, True)},
    {"T": 2, "B": 5, "I": 500, "H": 1},
    {"T": 0, "B": 2},
    {"B": 0},
]


def name(variant):
    return "-".join(f"{k}{v}" for k, v in variant.items()).replace(" ", "") or "plain"


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_forward(kernels, rng, cell, dtype, variant):
    p = problem(rng, cell, dtype, **variant)
    results = [
        assert_forward_right(kernels, p, threads=n, save=save)
        for n in oracle.thread_counts(kernels)
        for save in (True, False)
    ]
    for other in results[1:]:
        assert other["y"].tobytes() == results[0]["y"].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_with_projection(kernels, rng, dtype):
    for extra in ({}, {"reverse": (False, True), "lengths": [4, 1, 0]}):
        p = problem(rng, "lstm", dtype, T=4, H=33, P=9, **extra)
        assert_forward_right(kernels, p, threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_never_used(kernels, rng, cell, dtype):
    p = problem(rng, cell, dtype, T=6, B=4, lengths=[2, 6, 0, 5], reverse=(False, True))
    clean = forward(kernels, p)
    for b, n in enumerate(p.lengths):
        p.x[n:, b] = np.nan
    poisoned = forward(kernels, p)
    for key in ("y", "h_n", "c_n"):
        assert poisoned[key].tobytes() == clean[key].tobytes()
    for b, n in enumerate(p.lengths):
        assert not decode(poisoned["y"])[n:, b].any()


def backward(kernels, p, d, **options):
    """Gradients of <y, dy> + <h_n, dh_n> (+ <c_n, dc_n>), as {name: array}."""
    arguments, rest = p.encoded()
    saved = kernels.sequence_forward(*arguments, **rest)
    encoded = {k: encode(v, p.dtype) for k, v in d.items() if k != "dc_n"}
    if "dc_n" in d:
        encoded["dc_n"] = oracle.state(d["dc_n"], p.dtype)
    found = kernels.sequence_backward(*arguments, saved, **rest, **encoded, **options)
    grads = {"x": found["dx"], "h0": found["dh0"]}
    if p.c0 is not None:
        grads["c0"] = found["dc0"]
    for i, direction in enumerate(found["weights"]):
        grads |= {f"w{i}.{j}": g for j, g in enumerate(direction) if g is not None}
    return {k: decode(g) for k, g in grads.items()}


def cotangents(rng, p):
    y, h_n, c_n = oracle.sequence(p.cell, p.x, p.h0, p.weights, c0=p.c0, **p.options())
    d = {"dy": rng.standard_normal(y.shape), "dh_n": rng.standard_normal(h_n.shape)}
    if c_n is not None:
        d["dc_n"] = rng.standard_normal(c_n.shape)
    return {k: decode(encode(v, p.dtype)) for k, v in d.items()}


def loss(p, d):
    y, h_n, c_n = oracle.sequence(p.cell, p.x, p.h0, p.weights, c0=p.c0, **p.options())
    return (
        (y * d["dy"]).sum()
        + (h_n * d["dh_n"]).sum()
        + (0 if c_n is None else (c_n * d["dc_n"]).sum())
    )


def arrays(p):
    found = {"x": p.x, "h0": p.h0} | ({} if p.c0 is None else {"c0": p.c0})
    for i, direction in enumerate(p.weights):
        found |= {f"w{i}.{j}": w for j, w in enumerate(direction) if w is not None}
    return found


GRADIENT_VARIANTS = [
    {},
    {"bias": False, "reverse": (True,)},
    {"reverse": (False, True), "lengths": [3, 0, 5]},
    {"T": 3, "B": 5, "I": 9, "H": 17},
]


@pytest.mark.parametrize("variant", GRADIENT_VARIANTS, ids=name)
@pytest.mark.parametrize("cell", [*CELLS, "lstm-projected"])
def test_gradients_are_derivatives(kernels, rng, cell, variant):
    """float64: each array's gradient along random directions, by central differences."""
    cell, _, projected = cell.partition("-")
    p = problem(rng, cell, "float64", P=3 if projected else None, **variant)
    d = cotangents(rng, p)
    grads = backward(kernels, p, d, threads=2)
    assert set(grads) == set(arrays(p))
    epsilon = 1e-6
    for key, array in arrays(p).items():
        for _ in range(2):
            direction = rng.standard_normal(array.shape)
            original = array.copy()
            array += epsilon * direction
            above = loss(p, d)
            array[...] = original - epsilon * direction
            below = loss(p, d)
            array[...] = original
            expected = (above - below) / (2 * epsilon)
            np.testing.assert_allclose(
                (grads[key] * direction).sum(), expected, rtol=2e-6, atol=2e-7, err_msg=key
            )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "variant", [*GRADIENT_VARIANTS, {"T": 2, "B": 17, "I": 65, "H": 63}], ids=name
)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_in_lower_precision(kernels, rng, cell, variant, dtype):
    p = problem(rng, cell, dtype, **variant)
    if cell == "rnn_relu":  # away from the kink, where rounding decides about the derivative
        for array in arrays(p).values():
            np.abs(array, out=array)
    d = cotangents(rng, p)
    found = backward(kernels, p, d)
    p.dtype = "float64"
    expected = backward(kernels, p, d)
    for key, grad in expected.items():
        scale = np.abs(grad).max(initial=0) + 1e-6
        limit = 1e-5 if dtype == "float32" else 0.04
        np.testing.assert_allclose(found[key], grad, rtol=0, atol=limit * scale, err_msg=key)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_ignore_padding(kernels, rng, cell):
    p = problem(rng, cell, "float32", T=6, B=4, lengths=[2, 6, 0, 5], reverse=(False, True))
    d = cotangents(rng, p)
    clean = backward(kernels, p, d)
    for b, n in enumerate(p.lengths):
        p.x[n:, b] = np.nan
        d["dy"][n:, b] = np.nan
    poisoned = backward(kernels, p, d, threads=2)
    for key, grad in clean.items():
        np.testing.assert_array_equal(poisoned[key], grad, err_msg=key)
    for b, n in enumerate(p.lengths):
        assert not poisoned["x"][n:, b].any()


@pytest.mark.parametrize(("I", "H"), [(1, 1), (7, 63), (65, 7), (63, 65), (500, 33), (64, 500)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_step(kernels, rng, cell, dtype, I, H):  # noqa: E741
    p = problem(rng, cell, dtype, T=1, B=19, I=I, H=H)
    (_, x, h0, weights), options = p.encoded()
    c = None if p.c0 is None else options["c0"][0]
    h_out, c_out = kernels.step(cell, x[0], h0[0], weights[0], c=c)
    h_exact, c_exact = oracle.step(
        cell, p.x[0], p.h0[0], None if c is None else p.c0[0], p.weights[0]
    )
    error = (oracle.ROUNDING[dtype] + 40 * oracle.EPSILON[dtype]) * max(1, np.abs(h_exact).max())
    np.testing.assert_allclose(decode(h_out), h_exact, rtol=0, atol=error)
    if c is not None:
        error = 40 * oracle.EPSILON[dtype] * max(1, np.abs(c_exact).max())
        np.testing.assert_allclose(c_out, c_exact, rtol=0, atol=error)
    # Alone, in any part of the batch and with any threads: the same bits.
    for threads in oracle.thread_counts(kernels):
        for rows in (slice(4, 5), slice(2, 9), slice(0, 19)):
            part = None if c is None else c[rows]
            found = kernels.step(cell, x[0, rows], h0[0, rows], weights[0], c=part, threads=threads)
            assert found[0].tobytes() == h_out[rows].tobytes()
            assert c is None or found[1].tobytes() == c_out[rows].tobytes()


def test_step_with_projection(kernels, rng):
    p = problem(rng, "lstm", "float32", T=1, B=4, H=33, P=9)
    (_, x, h0, weights), options = p.encoded()
    h_out, c_out = kernels.step("lstm", x[0], h0[0], weights[0], c=options["c0"][0], threads=2)
    h_exact, c_exact = oracle.step("lstm", p.x[0], p.h0[0], p.c0[0], p.weights[0])
    np.testing.assert_allclose(h_out, h_exact, atol=1e-5)
    np.testing.assert_allclose(c_out, c_exact, atol=1e-5)


def test_projection_to_nothing_is_refused(kernels):
    """An empty w_hr has no address, which the kernels read as no projection."""

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    weights = (zeros(20, 3), zeros(20, 0), None, None, zeros(0, 5))
    with pytest.raises(ValueError, match="P >= 1"):
        kernels.step("lstm", zeros(2, 3), zeros(2, 0), weights, c=zeros(2, 5))
    with pytest.raises(ValueError, match="P >= 1"):
        kernels.sequence_forward(
            "lstm", zeros(4, 2, 3), zeros(1, 2, 0), [weights], c0=zeros(1, 2, 5)
        )
