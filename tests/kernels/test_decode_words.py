# SPDX-License-Identifier: MIT
"""Decoding with words of each source's own, with the scores of all words, by several models, by
projecting layers: against calls that do without."""

import numpy as np
import pytest
from decode_loop import BEAM, GIVEN, GREEDY, SAMPLE, assert_bits, make_model, make_sources, part_of
from oracle import encode, state

DTYPES = ["float32", "float64", "bfloat16"]
WAYS = [
    {"mode": GREEDY},
    {"mode": BEAM, "slots": 3, "results": 2},
    {"mode": SAMPLE, "slots": 2, "results": 2, "top_k": 5, "seed": 3},
    {"mode": SAMPLE, "slots": 2, "results": 2, "top_p": 0.8, "seed": 3},
    {"mode": SAMPLE, "slots": 2, "results": 2, "seed": 3},
]
ENDS = {"eos": [0, 1, 2, 3, 4, 5], "max_new_tokens": 7}
B, V = 5, 211

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def setting(dtype, seed=1, **options):
    rng = np.random.default_rng(seed)
    model = make_model(rng, dtype, V=V, context="attention", input_feeding=True, **options)
    return rng, model, make_sources(rng, model, dtype, B)


def lists_of(rng, ends=ENDS["eos"]):
    """Ascending words of each source, and where each begins."""
    sizes = [1, 7, 96, 97, V - 8]
    lists = [np.union1d(rng.choice(V, n, replace=False), ends) for n in sizes]
    return lists, np.concatenate([[0], np.cumsum([len(words) for words in lists])])


def rows_of(found, rows):
    steps = max(found["lengths"][rows], default=0)
    cut = {n: v[rows] for n, v in found.items() if n != "undefined"}
    for name in ("tokens", "log_probs", "attentions", "scores"):
        if name in cut:
            cut[name] = np.ascontiguousarray(cut[name][:, :steps])
    return cut | {"undefined": (-1, -1)}


@every_dtype
@every_way
@pytest.mark.parametrize("threads", [1, 2])
def test_words_of_a_sources_own(cpu_kernels, dtype, way, threads):
    """As a vocabulary of these words alone would be decoded."""
    rng, model, sources = setting(dtype)
    lists, starts = lists_of(rng)
    options = {**ENDS, **way, "repetition_penalty": 1.3, "banned": [6, 7], "min_new_tokens": 2}
    allowed = rng.random((B, V)) < 0.8
    allowed[:, :6] = True
    prefix = np.full((B, 1), -1)
    prefix[3] = lists[3][-1]
    found = cpu_kernels.decode_sequences(
        model,
        sources,
        threads=threads,
        scores=True,
        shortlist=np.concatenate(lists),
        shortlist_starts=starts,
        allowed=allowed.astype(np.uint8),
        prefix=prefix,
        row_ids=np.arange(B),
        attentions=True,
        **options,
    )
    count = options.get("results", 1)
    for b, words in enumerate(lists):
        alone = {**model, "tokens": words}
        alone["output_weight"] = model["output_weight"][words]
        alone["output_bias"] = model["output_bias"][words]
        want = cpu_kernels.decode_sequences(
            alone,
            part_of(sources, slice(b, b + 1)),
            scores=True,
            allowed=allowed[b : b + 1, words].astype(np.uint8),
            prefix=prefix[b : b + 1],
            row_ids=[b],
            attentions=True,
            **options,
        )
        assert_bits(rows_of(found, np.arange(b * count, (b + 1) * count)), want)


@every_dtype
def test_given_tokens_within_a_list(cpu_kernels, dtype):
    rng, model, sources = setting(dtype)
    lists, starts = lists_of(rng)
    given = rng.integers(0, V, (B, 4))
    given[:, 0] = [words[0] for words in lists]
    options = {"mode": GIVEN, "given": given, "given_lengths": [4, 3, 0, 1, 4]}
    listed = {"shortlist": np.concatenate(lists), "shortlist_starts": starts}
    found = cpu_kernels.decode_sequences(model, sources, **options, **listed)
    for b, words in enumerate(lists):
        for t in range(options["given_lengths"][b]):
            assert (found["log_probs"][b, t] > -np.inf) == (given[b, t] in words)


@every_dtype
@every_way
def test_scores_of_all_words(cpu_kernels, dtype, way):
    _, model, sources = setting(dtype)
    options = {**ENDS, **way, "banned": [9, 100]}
    found = cpu_kernels.decode_sequences(model, sources, scores=True, **options)
    scores = found.pop("scores")
    assert scores.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert_bits(cpu_kernels.decode_sequences(model, sources, **options), found)
    for r, length in enumerate(found["lengths"]):
        own = np.take_along_axis(scores[r, :length], found["tokens"][r, :length, None], 1)[:, 0]
        assert (own == found["log_probs"][r, :length]).all()
        assert (scores[r, :length][:, [9, 100]] == -np.inf).all()
        total = np.exp(scores[r, :length].astype(np.float64)).sum(1)
        assert (total < 1 + 1e-3).all()
        assert not scores[r, length:].any()


@every_way
@pytest.mark.parametrize("mean_of_logs", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_several_models(cpu_kernels, way, mean_of_logs, threads):
    """Of all words' log-probabilities the mean; the choice goes by that."""
    _, model, sources = setting("float64")
    members = []
    for seed, dtype, cell in ((2, "bfloat16", "gru"), (3, "float32", "lstm")):
        _, other, own = setting(dtype, seed, cell=cell, H=seed + 6)
        own["lengths"] = sources["lengths"]
        members.append((other, own))
    options = {**ENDS, **way, "attentions": True}
    found = cpu_kernels.decode_sequences(
        model, sources, threads, members, True, mean_of_logs=mean_of_logs, **options
    )
    plain = cpu_kernels.decode_sequences(
        model, sources, more=members, mean_of_logs=mean_of_logs, **options
    )
    scores, count = found.pop("scores"), options.get("results", 1)
    assert_bits(plain, found)
    given = {"mode": GIVEN, "given_lengths": np.repeat([ENDS["max_new_tokens"]], B)}
    for n in range(count):  # each model's own log-probabilities of the n-th row of each source
        tokens = np.zeros((B, ENDS["max_new_tokens"]), np.int64)
        tokens[:, : found["tokens"].shape[1]] = found["tokens"][n::count]
        given["given"] = tokens
        alone = [
            cpu_kernels.decode_sequences(*member, **given)["log_probs"]
            for member in ((model, sources), *members)
        ]
        if mean_of_logs:
            want = np.mean(alone, axis=0)
        else:
            want = np.log(np.mean(np.exp(alone), axis=0))
        for b in range(B):
            r, length = b * count + n, found["lengths"][b * count + n]
            got = found["log_probs"][r, :length]
            np.testing.assert_allclose(got, want[b, :length], rtol=1e-9)
            if way["mode"] == GREEDY:
                assert (scores[r, :length].argmax(1) == found["tokens"][r, :length]).all()
    both = cpu_kernels.decode_sequences(
        model, sources, more=members, mean_of_logs=mean_of_logs, **given
    )
    np.testing.assert_allclose(both["log_probs"], want, rtol=1e-9)


@every_dtype
@every_way
def test_a_projection_that_changes_nothing(cpu_kernels, dtype, way):
    """h is the first P of H units: weights of an LSTM without projection, and zeros."""
    rng = np.random.default_rng(4)
    P, H = 5, 9
    small = make_model(rng, dtype, V=V, H=P, L=2)
    sources = make_sources(rng, small, dtype, B)

    def wider(weight):
        gates = weight.reshape(4, P, *weight.shape[1:])
        return np.concatenate([gates, 0 * gates[:, : H - P]], 1).reshape(-1, *weight.shape[1:])

    first = encode(np.eye(P, H), dtype)
    layers = [(*map(wider, layer), first) for layer in small["layers"]]
    wide = {**small, "H": H, "layers": layers}
    zeros = state(np.zeros((B, H - P)), dtype)
    cells = [np.concatenate([c, zeros], 1) for c in sources["cells"]]
    options = {**ENDS, **way}
    want = cpu_kernels.decode_sequences(small, sources, **options)
    found = cpu_kernels.decode_sequences(wide, {**sources, "cells": cells}, threads=2, **options)
    assert_bits(found, want)
