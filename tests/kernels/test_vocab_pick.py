# SPDX-License-Identifier: MIT
import numpy as np
import oracle
import pytest
from oracle import DTYPES, decode, encode

SIZES = (1, 7, 63, 65, 500)


def problem(rng, dtype, B, H, V):
    hidden = encode(rng.standard_normal((B, H)), dtype)
    weight = encode(rng.standard_normal((V, H)) / np.sqrt(H), dtype)
    return hidden, weight, encode(rng.standard_normal(V), dtype)


def assert_right(found, hidden, weight, bias, k, dtype):
    """Against the oracle: log-probabilities, their order, and indices that have them."""
    values = [decode(hidden), decode(weight), None if bias is None else decode(bias)]
    expected, order, every = oracle.vocab_pick(*values, k=k)
    log_probs, indices = decode(found[0]), found[1]
    magnitude = np.abs(values[0]) @ np.abs(values[1]).T + (0 if bias is None else np.abs(values[2]))
    tolerance = 4 * oracle.EPSILON[dtype] * (magnitude.max() + np.abs(every).max())
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        np.take_along_axis(every, indices, 1), log_probs, rtol=0, atol=tolerance
    )
    assert (np.diff(log_probs, axis=1) <= 0).all()
    assert all(len(set(row)) == k for row in indices.tolist())
    if k == 1:  # the same pick wherever the runner-up is not within rounding
        second = np.sort(every, axis=1)[:, -2] if every.shape[1] > 1 else -np.inf
        clear = expected[:, 0] - second > 2 * tolerance
        np.testing.assert_array_equal(indices[clear, 0], order[clear, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", SIZES)
@pytest.mark.parametrize("H", SIZES)
def test_sizes(kernels, rng, dtype, H, V):
    for B in (1, 2, 7):
        for k in {1, min(5, V), V}:
            p = problem(rng, dtype, B, H, V)
            assert_right(kernels.vocab_pick(*p, k=k), *p, k, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_many_blocks(kernels, rng, dtype):
    p = problem(rng, dtype, 61, 96, 3001)
    for k in (1, 8):
        assert_right(kernels.vocab_pick(*p, k=k, threads=3), *p, k, dtype)


def test_more_rows_than_a_group(kernels, rng):
    p = problem(rng, "float32", 700, 7, 201)
    assert_right(kernels.vocab_pick(*p, k=3, threads=2), *p, 3, "float32")


def test_without_bias(kernels, rng):
    hidden, weight, _ = problem(rng, "float32", 5, 33, 300)
    assert_right(kernels.vocab_pick(hidden, weight, k=2), hidden, weight, None, 2, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "V"), [(65, 500), (512, 1203), (500, 97)])
def test_rows_do_not_depend_on_batch_or_threads(kernels, rng, dtype, H, V):
    B = 23
    hidden, weight, bias = problem(rng, dtype, B, H, V)
    whole = kernels.vocab_pick(hidden, weight, bias, k=4)
    for threads in oracle.thread_counts(kernels):
        for rows in (slice(0, B), slice(3, 4), slice(5, 7), slice(6, 17), slice(2, 21)):
            part = kernels.vocab_pick(hidden[rows], weight, bias, k=4, threads=threads)
            assert part[0].tobytes() == whole[0][rows].tobytes()
            assert part[1].tobytes() == whole[1][rows].tobytes()
    # ... nor on K
    one = kernels.vocab_pick(hidden, weight, bias, k=1)
    assert one[0].tobytes() == whole[0][:, :1].tobytes()
    assert one[1].tobytes() == whole[1][:, :1].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 5, 40, 400])
def test_ties_go_to_the_lowest_index(kernels, rng, dtype, k):
    """Small integers: sums are exact, ties abound and are exact, too."""
    hidden = rng.integers(-2, 3, (6, 9)).astype(float)
    weight = rng.integers(-1, 2, (400, 9)).astype(float)
    bias = rng.integers(0, 2, 400).astype(float)
    _, order, _ = oracle.vocab_pick(hidden, weight, bias, k=k)
    for threads in oracle.thread_counts(kernels):
        found = kernels.vocab_pick(
            *(encode(x, dtype) for x in (hidden, weight, bias)), k=k, threads=threads
        )
        np.testing.assert_array_equal(found[1], order)


def test_all_equal(kernels):
    log_probs, indices = kernels.vocab_pick(
        np.zeros((2, 3), np.float32), np.zeros((250, 3), np.float32), k=250, threads=2
    )
    np.testing.assert_array_equal(indices, np.tile(np.arange(250), (2, 1)))
    np.testing.assert_allclose(log_probs, -np.log(250), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_banned_tokens_come_last(kernels, rng, dtype):
    hidden, weight, bias = problem(rng, dtype, 4, 17, 205)
    banned = np.ones(205, bool)
    banned[[3, 100, 204]] = False
    values = decode(bias)
    values[banned] = -np.inf
    bias = encode(values, dtype)
    log_probs, indices = kernels.vocab_pick(hidden, weight, bias, k=6, threads=2)
    expected, order, _ = oracle.vocab_pick(decode(hidden), decode(weight), values, k=6)
    np.testing.assert_array_equal(indices, order)  # the banned ones by their index
    np.testing.assert_allclose(decode(log_probs)[:, :3], expected[:, :3], rtol=1e-5)
    assert np.isneginf(log_probs[:, 3:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("word", [0, 96, 249])
@pytest.mark.parametrize("k", [1, 3])
def test_nan_and_infinite_logits(kernels, rng, dtype, bad, word, k):
    """A NaN or +inf logit has no log-softmax: NaN and 0, 1, ...; other rows are as they were."""
    hidden, weight, bias = problem(rng, dtype, 5, 8, 250)
    clean = kernels.vocab_pick(hidden, weight, bias, k=k)
    values, words = decode(hidden), decode(weight)
    values[:, 0] = 0.0
    words[:, 0] = 0.0
    words[word, 0] = bad  # times 0 is NaN, ...
    values[2, 0] = 1.0  # times 1 is `bad`
    hidden, weight = encode(values, dtype), encode(words, dtype)
    log_probs, indices = kernels.vocab_pick(hidden, weight, bias, k=k, threads=2)
    assert np.isnan(log_probs).all()
    np.testing.assert_array_equal(indices, np.tile(np.arange(k), (5, 1)))

    # A NaN in one row's hidden state is that row's alone.
    hidden, weight, bias = problem(np.random.default_rng(20260101), dtype, 5, 8, 250)
    values = decode(hidden)
    values[3, 5] = np.nan
    log_probs, indices = kernels.vocab_pick(encode(values, dtype), weight, bias, k=k)
    assert np.isnan(log_probs[3]).all()
    np.testing.assert_array_equal(indices[3], np.arange(k))
    rest = [0, 1, 2, 4]
    assert log_probs[rest].tobytes() == clean[0][rest].tobytes()
    assert indices[rest].tobytes() == clean[1][rest].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3])
def test_a_nan_anywhere_in_a_block(kernels, rng, dtype, k):
    """Maxima over lanes may lose a NaN, sums of exponentials may not: wherever it stands."""
    hidden, weight, bias = problem(rng, dtype, 2, 3, 130)
    for word in range(130):
        values = decode(bias)
        values[word] = np.nan
        values[(word + 1) % 130] = 50  # the largest lies beside it
        log_probs, indices = kernels.vocab_pick(hidden, weight, encode(values, dtype), k=k)
        assert np.isnan(log_probs).all(), word
        np.testing.assert_array_equal(indices, np.tile(np.arange(k), (2, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_but_minus_infinity(kernels, rng, dtype):
    hidden, weight, _ = problem(rng, dtype, 3, 5, 130)
    bias = encode(np.full(130, -np.inf), dtype)
    log_probs, indices = kernels.vocab_pick(hidden, weight, bias, k=4)
    assert np.isnan(log_probs).all()
    np.testing.assert_array_equal(indices, np.tile(np.arange(4), (3, 1)))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e30])
def test_range_of_logits(kernels, rng, scale):
    hidden = encode(rng.standard_normal((3, 1)), "float32")
    weight = encode(rng.standard_normal((300, 1)) * scale, "float32")
    found = kernels.vocab_pick(hidden, weight, k=300)
    assert_right(found, hidden, weight, None, 300, "float32")


def test_no_features(kernels):
    """H = 0 leaves the bias."""
    bias = np.array([0, 1, -1], np.float32)
    none = (np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32))
    assert_right(kernels.vocab_pick(*none, bias, k=3), *none, bias, 3, "float32")


def test_empty_batch_and_wrong_k(kernels):
    hidden, weight = np.zeros((0, 4), np.float32), np.zeros((9, 4), np.float32)
    log_probs, indices = kernels.vocab_pick(hidden, weight, k=2)
    assert log_probs.shape == indices.shape == (0, 2)
    for k in (0, 10):
        with pytest.raises(ValueError, match=f"expected 1 <= K <= V = 9, got K = {k}"):
            kernels.vocab_pick(np.zeros((1, 4), np.float32), weight, k=k)
