# SPDX-License-Identifier: MIT
"""Draws from the vocabulary: against Philox and Gumbel-argmax written out in float64 NumPy."""

import numpy as np
import oracle
import pytest
from oracle import DTYPES, decode, encode

U64 = np.uint64


def philox(counter, key, rounds=10):
    """Philox4x32: arrays of four 32-bit counter words and two key words, broadcast."""
    low = U64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(c, U64) for c in counter)
    k0, k1 = (U64(k) for k in key)
    for _ in range(rounds):
        a, b = U64(0xD2511F53) * c0, U64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (b >> U64(32)) ^ c1 ^ k0,
            b & low,
            (a >> U64(32)) ^ c3 ^ k1,
            a & low,
        )
        k0, k1 = (k0 + U64(0x9E3779B9)) & low, (k1 + U64(0xBB67AE85)) & low
    return c0, c1, c2, c3


def random_bits(seed, step, rows, V):
    """(B, V): the 32 bits of each word."""

    def split(x):
        return int(x) & 0xFFFFFFFF, (int(x) >> 32) & 0xFFFFFFFF

    words = np.arange(V)
    call = words // 32 * 8 + words % 8
    row = np.asarray(rows, np.int64).view(U64)[:, None]
    counter = (call[None], split(step)[0], row & U64(0xFFFFFFFF), row >> U64(32))
    numbers = np.stack(np.broadcast_arrays(*philox(counter, split(seed))))
    return np.take_along_axis(numbers, (words // 8 % 4)[None, None], 0)[0]


def gumbel(seed, step, rows, V):
    return -np.log(-np.log1p(-(random_bits(seed, step, rows, V) + 0.5) * 2.0**-32))


def assert_drawn(found, logits, noise, dtype, tolerance=None):
    """The word with the largest key, or one within rounding of it; and its log-probability."""
    log_probs, indices = decode(found[0]), found[1]
    if tolerance is None:
        tolerance = 64 * oracle.EPSILON[dtype] * max(1, np.abs(logits[np.isfinite(logits)]).max())
    keys = logits + noise
    taken = np.take_along_axis(keys, indices[:, None], 1)[:, 0]
    best = keys.max(1)
    assert (taken >= best - tolerance).all()
    clear = np.sort(keys, axis=1)[:, -2] < best - tolerance if keys.shape[1] > 1 else best > -np.inf
    np.testing.assert_array_equal(indices[clear], keys.argmax(1)[clear])
    exact = logits - logits.max(1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    exact = np.take_along_axis(exact, indices[:, None], 1)[:, 0]
    np.testing.assert_allclose(log_probs, exact, rtol=0, atol=tolerance)


def pack(banned):
    """(B, V) bool -> (B, ceil(V / 32)) int32."""
    B, V = banned.shape
    bits = np.zeros((B, (V + 31) // 32 * 32), np.uint8)
    bits[:, :V] = banned
    return np.packbits(bits, axis=1, bitorder="little").view("<i4").astype(np.int32)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of the authors' own library
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox(counter, key, expected):
    assert tuple(int(x) for x in philox(counter, key)) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 7, 31, 32, 33, 65, 96, 97, 500])
@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0])
def test_draws(kernels, rng, dtype, V, temperature):
    B, H = 9, 17
    hidden = encode(rng.standard_normal((B, H)), dtype)
    weight = encode(rng.standard_normal((V, H)), dtype)
    bias = encode(rng.standard_normal(V), dtype)
    logits = (decode(hidden) @ decode(weight).T + decode(bias)) / temperature
    rows = rng.integers(-(2**62), 2**62, B)
    for seed, step, ids in ((0, 0, None), (-(2**63) + 5, 2**40 + 3, rows), (12345, 7, rows)):
        found = kernels.vocab_sample(
            hidden, weight, bias, seed=seed, step=step, rows=ids, temperature=temperature, threads=2
        )
        noise = gumbel(seed, step, np.arange(B) if ids is None else ids, V)
        assert_drawn(found, logits, noise, dtype)


# Where a million draws are wanted the CPU makes them: the CUDA kernels' are held to the same noise,
# word by word, by the tests above and below.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_draws(cpu_kernels, rng, dtype):
    """Tens of thousands of draws: millions of noise values."""
    V, B = 97, 10_000
    logits = encode(3 * rng.standard_normal(V), dtype)
    none = encode(np.zeros((B, 0)), dtype), encode(np.zeros((V, 0)), dtype)
    for step in range(3):
        found = cpu_kernels.vocab_sample(*none, logits, seed=99, step=step, threads=2)
        noise = gumbel(99, step, np.arange(B), V)
        assert_drawn(found, np.broadcast_to(decode(logits), (B, V)), noise, dtype)


def test_distribution(cpu_kernels, rng):
    """Chi-square of a million draws; words with fewer than five expected are taken together."""
    V, B, total = 111, 50_000, 1_000_000
    logits = (2 * rng.standard_normal(V)).astype(np.float32)
    temperature = 0.8
    none = np.zeros((B, 0), np.float32), np.zeros((V, 0), np.float32)
    counts = np.zeros(V)
    for step in range(total // B):
        _, words = cpu_kernels.vocab_sample(
            *none, logits, seed=1, step=step, temperature=temperature, threads=2
        )
        counts += np.bincount(words, minlength=V)
    p = np.exp(logits.astype(float) / temperature)
    expected = total * p / p.sum()
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(counts[~rare], counts[rare].sum())
    keep = expected > 0
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1e-300))[keep].sum()
    freedom = keep.sum() - 1
    # The 1 - 1e-6 quantile, by Wilson and Hilferty.
    limit = freedom * (1 - 2 / (9 * freedom) + 4.7534 * np.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit


def test_rare_words(cpu_kernels):
    """A word of probability 1e-4 comes as often as it should, though its rival is near certain."""
    B = 500_000
    none = np.zeros((B, 0)), np.zeros((2, 0))
    bias = np.log([1 - 1e-4, 1e-4])
    hits = sum(
        cpu_kernels.vocab_sample(*none, bias, seed=3, step=step, threads=2)[1].sum()
        for step in range(2)
    )
    assert abs(hits - 100) < 5 * 10  # five standard deviations


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_do_not_depend_on_batch_or_threads(kernels, rng, dtype):
    B, H, V = 23, 33, 1203
    hidden = encode(rng.standard_normal((B, H)), dtype)
    weight = encode(rng.standard_normal((V, H)) / np.sqrt(H), dtype)
    ids = np.arange(B)
    whole = kernels.vocab_sample(hidden, weight, seed=4, step=5)
    for threads in oracle.thread_counts(kernels):
        for rows in (slice(0, B), slice(3, 4), slice(5, 7), slice(2, 21)):
            part = kernels.vocab_sample(
                hidden[rows], weight, seed=4, step=5, rows=ids[rows], threads=threads
            )
            assert part[0].tobytes() == whole[0][rows].tobytes()
            assert part[1].tobytes() == whole[1][rows].tobytes()
    for other in ({"seed": 5, "step": 5}, {"seed": 4, "step": 6}):
        assert (kernels.vocab_sample(hidden, weight, **other)[1] != whole[1]).any()


def test_rows_in_another_group_keep_their_ids(kernels, rng):
    """More rows than go through the weights at once."""
    hidden = encode(rng.standard_normal((700, 5)), "float32")
    weight = encode(rng.standard_normal((40, 5)), "float32")
    found = kernels.vocab_sample(hidden, weight, seed=8, step=1, threads=2)
    noise = gumbel(8, 1, np.arange(700), 40)
    assert_drawn(found, decode(hidden) @ decode(weight).T, noise, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [5, 32, 97, 300])
def test_bans_and_temperature(kernels, rng, dtype, V):
    """A banned word is as good as absent, NaN or not; temperature divides the logits."""
    B, H = 6, 9
    hidden = encode(rng.standard_normal((B, H)), dtype)
    weight = encode(rng.standard_normal((V, H)), dtype)
    bias = rng.standard_normal(V)
    banned = rng.random((B, V)) < 0.5
    banned[:, -1] = True
    banned[:, 0] = False
    bias[-1] = np.nan
    bias = encode(bias, dtype)
    logits = (decode(hidden) @ decode(weight).T + decode(bias)) / 0.7
    logits[banned] = -np.inf
    options = {"banned": pack(banned), "temperature": 0.7, "threads": 2}
    k = min(4, V)
    log_probs, indices = kernels.vocab_pick(hidden, weight, bias, k=k, **options)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    exact = logits - logits.max(1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    np.testing.assert_allclose(
        decode(log_probs), np.take_along_axis(exact, order, 1), rtol=0, atol=1e-5
    )
    found = kernels.vocab_sample(hidden, weight, bias, seed=1, step=2, **options)
    noise = gumbel(1, 2, np.arange(B), V)
    assert_drawn(found, logits, noise, dtype)
    assert not banned[np.arange(B), found[1]].any()


def test_no_bans_and_temperature_one_change_no_bit(kernels, rng):
    hidden = encode(rng.standard_normal((5, 20)), "float32")
    weight = encode(rng.standard_normal((333, 20)), "float32")
    plain = kernels.vocab_pick(hidden, weight, k=3)
    other = kernels.vocab_pick(
        hidden, weight, k=3, banned=np.zeros((5, 11), np.int32), temperature=1.0
    )
    assert plain[0].tobytes() == other[0].tobytes()
    assert plain[1].tobytes() == other[1].tobytes()


def test_everything_banned(kernels, rng):
    hidden = encode(rng.standard_normal((3, 4)), "float32")
    weight = encode(rng.standard_normal((40, 4)), "float32")
    banned = np.zeros((3, 40), bool)
    banned[1] = True
    log_probs, indices = kernels.vocab_pick(hidden, weight, k=3, banned=pack(banned))
    assert np.isnan(log_probs[1]).all()
    assert indices[1].tolist() == [0, 1, 2]
    assert np.isfinite(log_probs[[0, 2]]).all()
    log_probs, indices = kernels.vocab_sample(hidden, weight, seed=0, step=0, banned=pack(banned))
    assert np.isnan(log_probs[1])
    assert indices[1] == 0
    assert np.isfinite(log_probs[[0, 2]]).all()
    banned[1, 33] = False  # one word left: certain
    log_probs, indices = kernels.vocab_sample(hidden, weight, seed=0, step=0, banned=pack(banned))
    assert (log_probs[1], indices[1]) == (0, 33)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_without_a_distribution(kernels, rng, bad):
    hidden = encode(rng.standard_normal((3, 4)), "float32")
    weight = encode(rng.standard_normal((200, 4)), "float32")
    clean = kernels.vocab_sample(hidden, weight, seed=0, step=0)
    bias = np.zeros(200, np.float32)
    bias[150] = bad
    log_probs, indices = kernels.vocab_sample(hidden, weight, bias, seed=0, step=0, threads=2)
    assert np.isnan(log_probs).all()
    assert not indices.any()
    hidden[1, 2] = np.nan
    log_probs, indices = kernels.vocab_sample(hidden, weight, seed=0, step=0)
    assert np.isnan(log_probs[1])
    assert indices[1] == 0
    assert log_probs[[0, 2]].tobytes() == clean[0][[0, 2]].tobytes()


def test_huge_logits_and_flat_ones(kernels):
    """At 1e30 the noise is nothing; among equals it is everything."""
    none = np.zeros((2000, 0), np.float32), np.zeros((100, 0), np.float32)
    bias = np.zeros(100, np.float32)
    bias[[60, 61]] = 1e30
    log_probs, indices = kernels.vocab_sample(*none, bias, seed=0, step=0)
    assert (indices == 60).all()  # equal keys: the lowest index
    np.testing.assert_allclose(log_probs, -np.log(2), rtol=1e-6)
    _, indices = kernels.vocab_sample(*none, np.zeros(100, np.float32), seed=0, step=0)
    assert len(set(indices.tolist())) == 100


def test_empty_batch(kernels):
    log_probs, indices = kernels.vocab_sample(
        np.zeros((0, 4), np.float32), np.zeros((9, 4), np.float32), seed=0, step=0
    )
    assert log_probs.shape == indices.shape == (0,)
