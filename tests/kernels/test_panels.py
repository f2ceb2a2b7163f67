# SPDX-License-Identifier: MIT
"""Products with weights in panels: the pick from the vocabulary. Whole decoding from panels is in
test_decode_sequences.py and test_decode_screen.py."""

import numpy as np
import pytest
from oracle import decode, encode

DTYPES = ("float32", "float64", "bfloat16")


def problem(rng, dtype, B, H, V, scale=1.0):
    hidden = encode(rng.standard_normal((B, H)), dtype)
    weight = encode(rng.standard_normal((V, H)) * scale, dtype)
    return hidden, weight, encode(rng.standard_normal(V), dtype)


def log_softmax(hidden, weight, bias):
    z = decode(hidden) @ decode(weight).T + decode(bias)
    z -= z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def by_word(found, V):
    """log_probs (B, V) in the order of the words."""
    log_probs, words = found
    result = np.empty((len(words), V))
    np.put_along_axis(result, words, log_probs.astype(np.float64), 1)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 47, 48, 95, 97, 200])
@pytest.mark.parametrize("H", [1, 2, 31, 33, 64, 257])
def test_sizes(cpu_kernels, rng, dtype, H, V):
    tolerance = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 2e-5}[dtype]
    for B in (1, 2, 3, 4, 5, 8, 9, 17):
        hidden, weight, bias = problem(rng, dtype, B, H, V, 3 / H**0.5)
        found = cpu_kernels.vocab_pick(hidden, weight, bias, k=V, panels=True)
        expected = log_softmax(hidden, weight, bias)
        np.testing.assert_allclose(by_word(found, V), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("H", [33, 512])
def test_a_row_does_not_feel_the_others(cpu_kernels, rng, dtype, H):
    """Tiles of every number of rows, blocks of every thread: the same bits."""
    hidden, weight, bias = problem(rng, dtype, 21, H, 400)
    whole = cpu_kernels.vocab_pick(hidden, weight, bias, k=5, panels=True, threads=3)
    for B in (*range(1, 10), 16, 20):
        some = rng.permutation(21)[:B]
        found = cpu_kernels.vocab_pick(hidden[some], weight, bias, k=5, panels=True)
        for got, want in zip(found, whole, strict=True):
            assert got.tobytes() == want[some].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_no_larger_than_those_of_other_sums(cpu_kernels, rng, dtype):
    """The sums over lanes, which is what weights as they lie are added up in, are the measure."""
    hidden, weight, bias = problem(rng, dtype, 16, 2048, 500, 1 / 45)
    expected = log_softmax(hidden, weight, bias)
    panels, lanes = (
        np.abs(
            by_word(cpu_kernels.vocab_pick(hidden, weight, bias, k=500, panels=p), 500) - expected
        )
        for p in (True, False)
    )
    assert panels.mean() <= 1.5 * lanes.mean()
    assert panels.max() <= 2 * lanes.max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_numbers_stay_with_their_rows(cpu_kernels, rng, dtype, bad):
    """Of features; no word that is not there takes part, though 0 times infinity is not 0."""
    hidden, weight, bias = problem(rng, dtype, 9, 33, 97)
    hidden = decode(hidden)
    clean = cpu_kernels.vocab_pick(encode(hidden, dtype), weight, bias, k=3, panels=True)
    hidden[4, 32] = bad
    log_probs, words = cpu_kernels.vocab_pick(encode(hidden, dtype), weight, bias, k=3, panels=True)
    others = np.arange(9) != 4
    assert log_probs[others].tobytes() == clean[0][others].tobytes()
    assert words[others].tobytes() == clean[1][others].tobytes()
    assert np.isnan(log_probs[4]).all()
    assert words[4].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_word_of_bad_numbers(cpu_kernels, rng, dtype):
    hidden, weight, bias = problem(rng, dtype, 9, 33, 97)
    hidden, weight = np.abs(decode(hidden)) + 0.1, decode(weight)
    weight[96, 32] = -np.inf
    log_probs, words = cpu_kernels.vocab_pick(
        encode(hidden, dtype), encode(weight, dtype), bias, k=97, panels=True
    )
    assert (words[:, -1] == 96).all()
    assert np.isneginf(log_probs[:, -1]).all()
    assert np.isfinite(log_probs[:, :-1]).all()
    weight[96, 32] = np.nan
    log_probs, _ = cpu_kernels.vocab_pick(
        encode(hidden, dtype), encode(weight, dtype), bias, k=1, panels=True
    )
    assert np.isnan(log_probs).all()
