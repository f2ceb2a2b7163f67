# SPDX-License-Identifier: MIT
"""Linear + cross-entropy against the formulas in float64, written out row by row."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle
import pytest
from oracle import DTYPES, decode, encode

SIZES = (1, 7, 63, 65, 500)
IGNORE = -100


@dataclass
class Problem:
    """Arrays as `_kernels` takes them."""

    dtype: str
    hidden: Any
    weight: Any
    target: Any
    bias: Any
    class_weight: Any
    options: dict[str, Any]

    def arguments(self):
        return (
            (self.hidden, self.weight, self.target),
            {"bias": self.bias, "class_weight": self.class_weight, **self.options},
        )


def make(rng, dtype, N, H, V, *, bias=True, weighted=False, ignored=0.2, scale=1.0, **options):
    target = rng.integers(0, V, N)
    target[rng.random(N) < ignored] = options.get("ignore_index", IGNORE)
    return Problem(
        dtype,
        encode(rng.standard_normal((N, H)), dtype),
        encode(rng.standard_normal((V, H)) * scale / np.sqrt(H), dtype),
        target,
        encode(rng.standard_normal(V), dtype) if bias else None,
        oracle.state(rng.random(V), dtype) if weighted else None,
        options,
    )


def gradient_of_loss(rng, p):
    size = len(p.target) if p.options.get("reduction") == "none" else 1
    return oracle.state(rng.standard_normal(size), p.dtype)


def solve(p, d_loss):
    """loss, d_hidden, d_weight, d_bias in float64; and the same sums over the magnitudes of their
    terms, which is what rounding goes by."""
    x, w = decode(p.hidden), decode(p.weight)
    V = len(w)
    c = np.ones(V) if p.class_weight is None else decode(p.class_weight)
    e = p.options.get("label_smoothing", 0.0)
    ignore = p.options.get("ignore_index", IGNORE)
    reduction = p.options.get("reduction", "mean")
    z = x @ w.T + (0 if p.bias is None else decode(p.bias))
    losses, dz = np.zeros((2, len(x))), np.zeros((2, *z.shape))
    divisor = sum(c[y] for y in p.target if y != ignore)
    for n, y in enumerate(p.target):
        if y == ignore:
            continue
        # -log p(v) counts with e / V * c[v], and for the target with (1 - e) c[y] besides.
        share = e / V * c
        share[y] += (1 - e) * c[y]
        log_p = z[n] - z[n].max()
        log_p -= np.log(np.exp(log_p).sum())
        some = share != 0
        losses[0, n] = -(share[some] * log_p[some]).sum()
        losses[1, n] = (share[some] * (np.abs(z[n, some]) + np.abs(log_p[some]) + 1)).sum()
        g = d_loss[n if reduction == "none" else 0]
        if reduction == "mean":
            g = g / divisor if divisor else 0.0
        dz[0, n] = g * (share.sum() * np.exp(log_p) - share)
        dz[1, n] = abs(g) * (share.sum() * np.exp(log_p) + share)
    results = []
    for row_losses, d_logits, features, words in zip(
        losses, dz, (x, np.abs(x)), (w, np.abs(w)), strict=True
    ):
        loss = row_losses if reduction == "none" else row_losses.sum(keepdims=True)
        if reduction == "mean":
            loss = loss / divisor if divisor else np.zeros(1)
        results.append((loss, d_logits @ words, d_logits.T @ features, d_logits.sum(0)))
    return results


def run(kernels, p, d_loss, threads=1, wanted="hwb", kept=0):
    args, options = p.arguments()
    options["threads"] = threads
    loss, lse, sums, logits = kernels.cross_entropy_forward(*args, **options, kept=kept)
    grads = kernels.cross_entropy_backward(
        d_loss, lse, sums, *args, **options, wanted=wanted, logits=logits
    )
    return loss, *grads


def assert_right(kernels, rng, p, threads=1):
    d_loss = gradient_of_loss(rng, p)
    found = run(kernels, p, d_loss, threads)
    expected, magnitude = solve(p, decode(d_loss))
    # Logits of size 1 to 5 and their rounding; and dz is rounded to the dtype before it is
    # multiplied, the products are after it.
    epsilon = 16 * oracle.EPSILON[p.dtype]
    names = ("loss", "d_hidden", "d_weight", "d_bias")
    factors = (0, np.abs(decode(p.weight)).sum(0), np.abs(decode(p.hidden)).sum(0), len(p.target))
    for name, a, b, size, factor in zip(names, found, expected, magnitude, factors, strict=True):
        tolerance = epsilon + (0 if name == "loss" else 2 * oracle.ROUNDING[p.dtype])
        limit = tolerance * size + (1 + factor) * oracle.UNDERFLOW[p.dtype]
        error = np.abs(decode(a) - b)
        assert (error <= limit).all(), (name, (error / limit).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", SIZES)
@pytest.mark.parametrize("H", SIZES)
def test_sizes(kernels, rng, dtype, H, V):
    for N in (1, 7, 65):
        assert_right(kernels, rng, make(rng, dtype, N, H, V, label_smoothing=0.1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_options(kernels, rng, dtype, reduction, label_smoothing, weighted):
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "weighted": weighted}
    for bias, ignored in itertools.product((False, True), (0.0, 0.4, 1.0)):
        p = make(rng, dtype, 33, 19, 130, bias=bias, ignored=ignored, ignore_index=3, **options)
        assert_right(kernels, rng, p)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_many_words(kernels, rng, dtype):
    """More than one group of rows, slice of words, block and chunk of the backward."""
    p = make(rng, dtype, 601, 48, 4001, weighted=True, label_smoothing=0.2)
    for threads in oracle.thread_counts(kernels)[::2]:
        assert_right(kernels, rng, p, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "H", "V"), [(1, 5, 900), (300, 33, 901), (40, 500, 97)])
def test_bits_do_not_depend_on_threads(cpu_kernels, rng, dtype, N, H, V):
    p = make(rng, dtype, N, H, V, weighted=True, label_smoothing=0.1)
    d_loss = gradient_of_loss(rng, p)
    once = run(cpu_kernels, p, d_loss)
    for threads in (1, 2, 3, 5):
        again = run(cpu_kernels, p, d_loss, threads)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", [384, 768, 901])
def test_kept_logits_change_no_bit(cpu_kernels, rng, dtype, kept):
    p = make(rng, dtype, 300, 33, 901, weighted=True, label_smoothing=0.1)
    d_loss = gradient_of_loss(rng, p)
    again = run(cpu_kernels, p, d_loss)
    for threads in (1, 2, 3):
        once = run(cpu_kernels, p, d_loss, threads, kept=kept)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("kept", [1, 385, 902, 1152])
def test_wrong_number_of_kept_logits(cpu_kernels, rng, kept):
    args, options = make(rng, "float32", 3, 5, 901).arguments()
    with pytest.raises(ValueError, match="cross_entropy_forward: kept"):
        cpu_kernels.cross_entropy_forward(*args, **options, kept=kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_loss_alone(kernels, rng, dtype):
    p = make(rng, dtype, 230, 65, 700, reduction="none")
    whole = kernels.cross_entropy_forward(*p.arguments()[0], **p.arguments()[1])[0]
    for n in (0, 5, 229):
        row = slice(n, n + 1)
        one = replace(p, hidden=p.hidden[row], target=p.target[row])
        loss = kernels.cross_entropy_forward(*one.arguments()[0], **one.arguments()[1])[0]
        assert loss.tobytes() == whole[row].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wanted", ["", "h", "w", "b", "hw", "wb"])
def test_only_what_is_wanted(kernels, rng, dtype, wanted):
    p = make(rng, dtype, 300, 17, 450)
    d_loss = gradient_of_loss(rng, p)
    every, some = run(kernels, p, d_loss), run(kernels, p, d_loss, 2, wanted)
    for letter, a, b in zip("hwb", every[1:], some[1:], strict=True):
        assert b is None if letter not in wanted else a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_rows(kernels, rng, dtype, reduction):
    p = make(rng, dtype, 0, 5, 9, reduction=reduction)
    assert_right(kernels, rng, p)
    loss, d_hidden, d_weight, d_bias = run(kernels, p, gradient_of_loss(rng, p))
    assert len(loss) == (0 if reduction == "none" else 1)
    assert not loss.any()
    assert not d_weight.any()
    assert not d_bias.any()
    assert len(d_hidden) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_over_weights_that_are_zero(kernels, rng, dtype):
    p = make(rng, dtype, 9, 5, 40, weighted=True, label_smoothing=0.1)
    p.class_weight[p.target[p.target != IGNORE]] = 0
    results = run(kernels, p, gradient_of_loss(rng, p))
    assert not any(decode(r).any() for r in results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [-1, 40, 2**62, -(2**63)])
def test_target_out_of_range_is_nan(kernels, rng, dtype, wrong):
    p = make(rng, dtype, 9, 5, 40, reduction="none", ignored=0)
    clean = run(kernels, p, gradient_of_loss(rng, p))
    p.target[4] = wrong
    loss, d_hidden, d_weight, _ = map(decode, run(kernels, p, gradient_of_loss(rng, p), 2))
    others = np.arange(9) != 4
    assert np.isnan(loss[4])
    assert np.isnan(d_hidden[4]).all()
    assert np.isnan(d_weight).all()
    assert np.isfinite(d_hidden[others]).all()
    np.testing.assert_array_equal(loss[others], decode(clean[0])[others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_without_a_distribution(kernels, rng, dtype, bad):
    p = make(rng, dtype, 9, 5, 240, reduction="none", ignored=0)
    values = decode(p.hidden)
    values[4] = bad
    p.target[7] = IGNORE
    values[7] = np.nan  # padding may hold anything
    p.hidden = encode(values, dtype)
    loss, d_hidden, *_ = map(decode, run(kernels, p, gradient_of_loss(rng, p)))
    assert np.isnan(loss).tolist() == (np.arange(9) == 4).tolist()
    assert np.isnan(d_hidden).all(1).tolist() == (np.arange(9) == 4).tolist()
    assert loss[7] == 0
    assert not d_hidden[7].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_impossible_words(kernels, rng, dtype):
    """A bias of -inf: such a word has probability 0, and as a target an infinite loss."""
    p = make(rng, dtype, 6, 5, 200, reduction="none", ignored=0)
    values = decode(p.bias)
    values[[0, 96, 150]] = -np.inf
    p.bias = encode(values, dtype)
    p.target[:] = [1, 96, 199, 2, 3, 97]
    d_loss = np.ones(6, dtype=oracle.state(0, dtype).dtype)
    loss, d_hidden, d_weight, d_bias = map(decode, run(kernels, p, d_loss))
    assert np.isinf(loss).tolist() == [False, True, False, False, False, False]
    assert np.isfinite(d_hidden).all()
    assert np.isfinite(d_weight).all()
    assert d_bias[0] == d_bias[150] == 0
    assert d_bias[96] == -1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e3])
def test_range_of_logits(kernels, rng, dtype, scale):
    p = make(rng, dtype, 8, 16, 300, scale=scale, reduction="none")
    d_loss = gradient_of_loss(rng, p)
    loss, d_hidden, *_ = map(decode, run(kernels, p, d_loss))
    expected, _ = solve(p, decode(d_loss))
    # Logits of this size, in this dtype's sums.
    tolerance = 64 * oracle.EPSILON[dtype] * max(1, scale)
    np.testing.assert_allclose(loss, expected[0], rtol=tolerance, atol=4 * tolerance)
    tolerance = 8 * (tolerance + oracle.ROUNDING[dtype]) * np.abs(expected[1]).max()
    tolerance += (1 + np.abs(decode(p.weight)).sum(0).max()) * oracle.UNDERFLOW[dtype]
    np.testing.assert_allclose(d_hidden, expected[1], rtol=0, atol=tolerance)


def test_gradient_of_many_rows(kernels, rng):
    """dW sums 20000 rows in float32 without losing them."""
    p = make(rng, "bfloat16", 20000, 3, 7, reduction="sum", ignored=0)
    assert_right(kernels, rng, p, threads=2)
