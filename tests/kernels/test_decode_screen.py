# SPDX-License-Identifier: MIT
"""The int8 screen of the vocabulary: what is found through it is what is found without."""

import numpy as np
import pytest
from decode_loop import (
    BEAM,
    GIVEN,
    GREEDY,
    SAMPLE,
    Loop,
    assert_bits,
    make_model,
    make_sources,
    part_of,
)
from oracle import decode, encode

DTYPES = ("float32", "bfloat16")
PICKS = {
    "greedy": {"mode": GREEDY},
    "top_k": {"mode": SAMPLE, "slots": 2, "results": 2, "top_k": 9, "temperature": 1.4},
    "top_128": {"mode": SAMPLE, "top_k": 128, "temperature": 2.0},
}


def screen_of(model):
    """(panels, numbers) of csrc/kernels/common/decode.h, in float64."""
    w = decode(model["output_weight"])
    V, H = w.shape
    bias = np.zeros(V) if model["output_bias"] is None else decode(model["output_bias"])
    scale = (np.abs(w).max(1) / 127).astype(np.float32).astype(np.float64)[:, None]
    q = np.clip(np.round(np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)), -127, 127)
    panels = np.full((V + -V % 96, H + -H % 4), 128, np.uint8)
    panels[:V, :H] = q + 128
    rounding = (H + 16) * 2.0**-22 * np.linalg.norm(w, axis=1)
    numbers = np.zeros((5, len(panels)), np.float32)
    numbers[:, :V] = (
        scale[:, 0],
        (np.linalg.norm(w - scale * q, axis=1) + rounding) * (1 + 1e-6),
        scale[:, 0] * np.linalg.norm(q, axis=1) * (1 + 1e-6),
        np.abs(bias) * 2.0**-20 + 2.0**-100,
        bias,
    )
    panels = panels.reshape(len(panels) // 16, 16, -1, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels), numbers


def told_features(rng, dtype, features, weight, bias=None):
    """A model whose features are those, one row a source, at every step: h = relu(h)."""
    H = features.shape[1]
    model = make_model(rng, dtype, cell="rnn_relu", H=H, V=len(weight), biases=False)
    zero = np.zeros_like(model["layers"][0][0])
    model["layers"] = [(zero, encode(np.eye(H), dtype), None, None)]
    model["output_weight"] = encode(weight, dtype)
    model["output_bias"] = None if bias is None else encode(bias, dtype)
    return model, {"hidden": [encode(features, dtype)]}


def compare(kernels, model, sources, *, atol=0.1, rtol=0.0, threads=(1, 4), **options):
    """Both ways, from panels; log-probabilities are the same to the screen's error only."""
    model = model | {"panels": True}
    plain = kernels.decode_sequences(model, sources, **options)
    screened = model | {"screen": screen_of(model)}
    found = kernels.decode_sequences(screened, sources, **options)
    for count in threads:
        again = kernels.decode_sequences(screened, sources, threads=count, **options)
        assert_bits(again, found)
    assert found["undefined"] == plain["undefined"]
    assert found["lengths"].tolist() == plain["lengths"].tolist()
    past = np.arange(found["tokens"].shape[1]) >= found["lengths"][:, None]
    assert (np.where(past, 0, found["tokens"]) == np.where(past, 0, plain["tokens"])).all()
    np.testing.assert_allclose(found["log_probs"], plain["log_probs"], rtol=rtol, atol=atol)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 95, 97, 300])
@pytest.mark.parametrize("H", [5, 33])
@pytest.mark.parametrize("pick", PICKS)
def test_sizes(cpu_kernels, rng, dtype, H, V, pick):
    for B in (0, 1, 9):
        model = make_model(rng, dtype, H=H, V=V, context="attention")
        sources = make_sources(rng, model, dtype, B)
        options = {"max_new_tokens": 6, "eos": [0], "seed": 3, "threads": ()} | PICKS[pick]
        compare(cpu_kernels, model, sources, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pick", PICKS)
def test_constraints(cpu_kernels, rng, dtype, pick):
    B, V = 20, 1200
    model = make_model(rng, dtype, H=33, V=V, L=2, biases=False)
    sources = make_sources(rng, model, dtype, B)
    prefix = rng.integers(-1, V, (B, 3))
    prefix[:10] = -1
    prefix = np.where(np.cumsum(prefix < 0, 1) > 0, -1, prefix)
    options = {
        "max_new_tokens": 12,
        "eos": [2],
        "min_new_tokens": 5,
        "banned": list(range(5, V, 11)),
        "allowed": rng.random((B, V)) < 0.7,
        "no_repeat_ngram_size": 2,
        "phrases": [[7, 8], [1, 1]],
        "prefix": prefix,
        "seed": 9,
    }
    for penalty in (1.0, 1.6, 0.7):
        options["repetition_penalty"] = penalty
        compare(cpu_kernels, model, sources, threads=(2,), **PICKS[pick], **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [900, 3000])
@pytest.mark.parametrize("pick", PICKS)
def test_all_words_survive(cpu_kernels, rng, dtype, V, pick):
    """A weight of each word is so large that the others are lost in its rounding, and meets a
    feature of zero: the screen tells nothing, and more words are left than lists hold."""
    features = np.abs(rng.standard_normal((9, 33)))
    features[:, 0] = 0
    weight = rng.standard_normal((V, 33)) / 3
    weight[:, 0] = 3e3
    model, sources = told_features(rng, dtype, features, weight, rng.standard_normal(V))
    penalized = {"repetition_penalty": 1.3, "banned": [4, 800], "no_repeat_ngram_size": 1}
    for options in ({}, penalized):
        compare(cpu_kernels, model, sources, max_new_tokens=3, atol=50, **options, **PICKS[pick])


@pytest.mark.parametrize("dtype", DTYPES)
def test_lists_that_overflow_and_recover(cpu_kernels, rng, dtype):
    """Ascending logits: each word overtakes all before it. Then all equal: each word stays."""
    V = 5000
    features = np.ones((2, 5))
    for bias in (np.arange(V) * 0.01, np.zeros(V), -np.arange(V) * 0.01):
        model, sources = told_features(rng, dtype, features, np.zeros((V, 5)), bias)
        found = compare(cpu_kernels, model, sources, max_new_tokens=2)
        if not bias.any():
            assert not found["tokens"].any()  # of equals the first
        compare(cpu_kernels, model, sources, max_new_tokens=2, **PICKS["top_k"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1.0, 1e3])
@pytest.mark.parametrize("weights", [1e-38, 1.0, 1e3])
def test_range_of_features_and_weights(cpu_kernels, rng, dtype, scale, weights):
    features = np.abs(rng.standard_normal((9, 33))) * scale
    features[3] = 0
    weight = rng.standard_normal((300, 33)) * weights
    for bias in (None, rng.standard_normal(300)):
        model, sources = told_features(rng, dtype, features, weight, bias)
        magnitude = np.abs(weight).max() * features.max() * 33
        options = {"max_new_tokens": 2, "atol": 1e-4 + 0.02 * magnitude}
        found = compare(cpu_kernels, model, sources, **options)
        compare(cpu_kernels, model, sources, **options, **PICKS["top_k"])
        assert found["undefined"] == (-1, -1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_screen_takes_a_word_for_far_too_likely(cpu_kernels, rng, dtype):
    """Its true logit is 40 less: hardly anything of the screen's sum is left."""
    H = 512
    features = np.full((1, H), 0.492)
    features[0, 0] = 1.0
    weight = np.zeros((100, H))
    weight[:, 1:] = -0.497
    weight[:, 0] = 127  # scale 1: the others are rounded to nothing
    weight[7, 1:] = -0.42
    weight[8, 1:] = 0
    weight[8, 0] = 6
    model, sources = told_features(rng, dtype, features, weight)
    found = compare(cpu_kernels, model, sources, max_new_tokens=2, atol=0.05)
    assert found["undefined"] == (-1, -1)
    # A forced word's own logit is the true one, what the others weigh is the screen's.
    options = {"max_new_tokens": 1, "prefix": np.array([[8]])}
    model["screen"] = screen_of(model)
    found = cpu_kernels.decode_sequences(model, sources, **options)
    assert found["tokens"].tolist() == [[8]]
    assert found["log_probs"][0, 0] <= 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_only_word(cpu_kernels, rng, dtype):
    """Its probability is 1, whatever the screen takes its logit for; forced or not."""
    features, weight = np.abs(rng.standard_normal((9, 33))), rng.standard_normal((1, 33)) * 9
    model, sources = told_features(rng, dtype, features, weight)
    for options in ({}, {"prefix": np.zeros((9, 1), int)}):
        found = compare(cpu_kernels, model, sources, atol=1e-6, max_new_tokens=2, **options)
        assert np.abs(found["log_probs"]).max() < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_source_by_several_threads(cpu_kernels, rng, dtype):
    """Every thread quantises a single row for itself."""
    model = make_model(rng, dtype, H=67, V=5001, context="attention")
    sources = make_sources(rng, model, dtype, 1)
    compare(cpu_kernels, model, sources, threads=(1, 2, 3, 4), max_new_tokens=30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-25, 1e-13, 1e-11, 1e11, 1e13, 1e20])
def test_features_of_any_size(cpu_kernels, rng, dtype, scale):
    """Squares of the largest and smallest leave the range of float32."""
    features = np.abs(rng.standard_normal((5, 35))) * scale
    features[:, 3] = scale * 1e-9
    weight = rng.standard_normal((300, 35)) / scale
    model, sources = told_features(rng, dtype, features, weight)
    compare(cpu_kernels, model, sources, max_new_tokens=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_undefined_features(cpu_kernels, rng, dtype, bad):
    features = np.abs(rng.standard_normal((40, 33)))
    weight, bias = rng.standard_normal((300, 33)), rng.standard_normal(300)
    clean = told_features(rng, dtype, features, weight, bias)
    expected = compare(cpu_kernels, *clean, max_new_tokens=3)
    features[17, 30] = bad
    # relu keeps infinities; times the identity's zeros they are NaN.
    model, sources = told_features(rng, dtype, features, weight, bias)
    model["screen"] = screen_of(model)
    for threads in (1, 2, 4):
        found = cpu_kernels.decode_sequences(model, sources, threads=threads, max_new_tokens=3)
        assert found["undefined"] == (17, 0)
        rest = np.arange(40) != 17
        assert found["tokens"][rest].tolist() == expected["tokens"][rest].tolist()


def test_undefined_weights(cpu_kernels, rng):
    """Not what a caller may hand over; what is computed from such a word is not finite."""
    features, weight = np.ones((3, 33)), rng.standard_normal((300, 33))
    weight[5, 2] = 100
    model, sources = told_features(rng, "float32", features, weight)
    screen = screen_of(model)
    model["output_weight"][5, 2] = np.nan
    found = cpu_kernels.decode_sequences(model | {"screen": screen}, sources, max_new_tokens=3)
    assert found["undefined"] == (0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beams(cpu_kernels, rng, dtype):
    """Sums of log-probabilities that are off a little, so ranks are compared."""
    model = make_model(rng, dtype, H=33, V=300, context="attention")
    sources = make_sources(rng, model, dtype, 40)
    options = {"mode": BEAM, "slots": 5, "results": 5, "max_new_tokens": 9, "eos": [2]}
    plain = cpu_kernels.decode_sequences(model, sources, **options)
    screened = model | {"screen": screen_of(model)}
    found = cpu_kernels.decode_sequences(screened, sources, **options)
    np.testing.assert_allclose(found["ranks"], plain["ranks"], atol=0.05)
    for threads in (2, 4):
        again = cpu_kernels.decode_sequences(screened, sources, threads=threads, **options)
        assert_bits(again, found)


def test_shortlists_are_not_screened(cpu_kernels, rng):
    tokens = np.arange(0, 300, 3)
    model = make_model(rng, "float32", H=33, V=100, tokens=tokens)
    sources = make_sources(rng, model, "float32", 9)
    screened = model | {"screen": screen_of(model)}
    for options in ({"max_new_tokens": 5}, {"mode": GIVEN, "given": tokens[:9, None]}):
        plain = cpu_kernels.decode_sequences(model, sources, **options)
        assert_bits(cpu_kernels.decode_sequences(screened, sources, **options), plain)
    assert len(Loop(cpu_kernels, model, sources, max_new_tokens=1).run()) == 9


WAYS = PICKS | {
    "penalties": {
        "mode": GREEDY,
        "repetition_penalty": 1.6,
        "no_repeat_ngram_size": 2,
        "banned": list(range(5, 900, 3)),
    },
    "beam": {"mode": BEAM, "slots": 5, "results": 5, "eos": [2]},
    "top_129": {"mode": SAMPLE, "top_k": 129, "temperature": 2.0},
    "top_p": {"mode": SAMPLE, "slots": 2, "results": 2, "top_p": 0.9, "temperature": 1.5},
    "draw": {"mode": SAMPLE, "slots": 2, "results": 2},
    "prefix": {"mode": GREEDY, "prefix": np.arange(20)[:, None] + 7},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_given_tokens_have_the_log_probabilities_they_were_found_with(cpu_kernels, rng, dtype, way):
    """To the bit, whether the screen has chosen them or only summed up."""
    B, V = 20, 900
    model = make_model(rng, dtype, H=33, V=V, context="attention") | {"panels": True}
    sources = make_sources(rng, model, dtype, B)
    screened = model | {"screen": screen_of(model)}
    options = {"max_new_tokens": 8, "seed": 4} | WAYS[way]
    found = cpu_kernels.decode_sequences(screened, sources, threads=2, **options)
    count = len(found["lengths"]) // B
    given = {"mode": GIVEN, "given": found["tokens"], "given_lengths": found["lengths"]}
    repeated = part_of(sources, np.repeat(np.arange(B), count))
    told = cpu_kernels.decode_sequences(screened, repeated, **given)
    assert told["log_probs"].tobytes() == found["log_probs"].tobytes()
    exact = cpu_kernels.decode_sequences(model, repeated, **given)
    error = np.abs(told["log_probs"] - exact["log_probs"])
    assert 0 < error.max() < 0.02


def test_a_sum_of_which_a_banned_word_has_the_most(cpu_kernels, rng):
    """It is computed anew for the sum, as if nothing were banned."""
    features, weight = np.abs(rng.standard_normal((9, 33))), rng.standard_normal((400, 33)) / 9
    bias = np.zeros(400)
    bias[0] = 20  # all of the probability, but for the last bits
    model, sources = told_features(rng, "float32", features, weight, bias)
    found = compare(cpu_kernels, model, sources, max_new_tokens=1, atol=1e-5, banned=[0])
    assert (found["log_probs"] < -15).all()
