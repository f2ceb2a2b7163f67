# SPDX-License-Identifier: MIT
"""Whole-sequence decoding against a loop over the module's own steps (decode_loop.py)."""

import itertools

import numpy as np
import pytest
from decode_loop import (
    BEAM,
    GIVEN,
    GREEDY,
    SAMPLE,
    assert_bits,
    check,
    make_model,
    make_sources,
    part_of,
)
from oracle import decode, encode

DTYPES = ("float32", "float64", "bfloat16")
# Contexts, attention kinds, cells and layers, each at least once.
MODELS = {
    "lstm": {},
    "gru-2": {"cell": "gru", "L": 2, "context": "every_step", "biases": False},
    "tanh": {"cell": "rnn_tanh", "context": "attention", "H": 33},
    "lstm-2-feeding": {"L": 2, "context": "attention", "project": True, "input_feeding": True},
    "relu-additive": {"cell": "rnn_relu", "context": "attention", "score": "additive"},
    "lstm-every": {"context": "every_step", "H": 33, "L": 2},
}
MODES = {
    "greedy": {"mode": GREEDY},
    "beam": {"mode": BEAM, "slots": 4, "results": 3, "length_penalty": 0.6},
    "groups": {"mode": BEAM, "slots": 4, "results": 4, "groups": 2, "diversity_penalty": 0.4},
    "draw": {"mode": SAMPLE, "slots": 2, "results": 2, "temperature": 1.3},
    "top_k": {"mode": SAMPLE, "slots": 2, "results": 2, "top_k": 7, "temperature": 0.8},
    "top_p": {"mode": SAMPLE, "slots": 2, "results": 2, "top_p": 0.8},
    "min_p": {"mode": SAMPLE, "min_p": 0.1, "row_ids": np.arange(10, 13)},
}


def options_of(mode, **more):
    return {"max_new_tokens": 7, "eos": [2, 3], "start_token": 1, "seed": 5} | MODES[mode] | more


def problem(rng, dtype, B, **sizes):
    model = make_model(rng, dtype, **sizes)
    return model, make_sources(rng, model, dtype, B)


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_models_and_modes(cpu_kernels, rng, dtype, name, mode, panels):
    model, sources = problem(rng, dtype, 3, **MODELS[name])
    model["panels"] = panels
    options = options_of(mode)
    if "keys" in sources:
        options["attentions"] = True
        if mode == "beam":
            options["coverage_penalty"] = 0.3
    check(cpu_kernels, model, sources, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 95, 97, 300])
@pytest.mark.parametrize("H", [5, 33])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("panels", [False, True])
def test_sizes(cpu_kernels, rng, dtype, H, V, mode, panels):
    B = 9 if mode == "greedy" else 2
    model, sources = problem(rng, dtype, B, H=H, V=V)
    model["panels"] = panels
    options = options_of(mode, start_token=0, eos=[V - 1])
    check(cpu_kernels, model, sources, **options)
    check(cpu_kernels, model, part_of(sources, slice(0, 1)), **options)


@pytest.mark.parametrize("context", ["initial_state", "every_step", "attention"])
@pytest.mark.parametrize("mode", MODES)
def test_no_sources(cpu_kernels, rng, context, mode):
    model, sources = problem(rng, "float32", 0, context=context)
    found = cpu_kernels.decode_sequences(model, sources, threads=2, **options_of(mode))
    assert found["tokens"].shape == found["log_probs"].shape == (0, 0)
    assert found["undefined"] == (-1, -1)


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("mode", ["greedy", "beam", "draw", "top_k", "top_p"])
def test_sources_wait_for_room(cpu_kernels, rng, mode, panels):
    """More rows than are in flight at once (256), which leave at different times."""
    model, sources = problem(rng, "float32", 300, V=97, cell="gru", context="attention")
    model["panels"] = panels
    options = options_of(mode, eos=list(range(40)), attentions=True, max_new_tokens=5)
    found = check(cpu_kernels, model, sources, **options)
    assert len(set(found["lengths"].tolist())) > 2
    some = part_of(sources, slice(290, 294))
    options["row_ids"] = np.arange(290, 294)
    K = options.get("results", 1)
    alone = cpu_kernels.decode_sequences(model, some, **options)
    T = alone["tokens"].shape[1]
    assert alone["log_probs"].tolist() == found["log_probs"][290 * K : 294 * K, :T].tolist()


def test_one_source_with_more_slots_than_rows_in_flight(cpu_kernels, rng):
    model, sources = problem(rng, "float32", 2, V=97)
    check(
        cpu_kernels, model, sources, **options_of("draw", slots=300, results=300, max_new_tokens=4)
    )
    check(
        cpu_kernels, model, sources, **options_of("beam", slots=300, results=300, max_new_tokens=4)
    )


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_threads(cpu_kernels, rng, dtype, mode, panels):
    """To the bit; so many rows and words that the engine takes four."""
    model, sources = problem(rng, dtype, 70, H=33, V=300, L=2, context="attention")
    model["panels"] = panels
    options = options_of(mode, attentions=True, max_new_tokens=6)
    if mode == "min_p":
        options["row_ids"] = np.arange(70)
    one = cpu_kernels.decode_sequences(model, sources, **options)
    for threads in (2, 4):
        found = cpu_kernels.decode_sequences(model, sources, threads=threads, **options)
        assert_bits(found, one)


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_given_tokens(cpu_kernels, rng, dtype, panels):
    model, sources = problem(rng, dtype, 9, H=33, context="attention")
    model["panels"] = panels
    lengths = np.array([0, 5, 1, 0, 3, 2, 5, 4, 0])
    options = {"mode": GIVEN, "given": rng.integers(0, 95, (9, 5)), "given_lengths": lengths}
    found = check(cpu_kernels, model, sources, attentions=True, **options)
    assert found["lengths"].tolist() == lengths.tolist()


def test_given_tokens_are_those_that_were_found(cpu_kernels, rng):
    model, sources = problem(rng, "bfloat16", 9, H=33, context="attention")
    options = options_of("greedy", eos=[], max_new_tokens=12)
    found = cpu_kernels.decode_sequences(model, sources, **options)
    told = cpu_kernels.decode_sequences(
        model, sources, mode=GIVEN, given=found["tokens"], start_token=1
    )
    assert told["log_probs"].tolist() == found["log_probs"].tolist()


@pytest.mark.parametrize("first", [7, 256, 299, 600])
def test_empty_given_rows_before_others(cpu_kernels, rng, first):
    """So many at the beginning that none of the first in flight has a token."""
    model, sources = problem(rng, "float32", 600, V=9, cell="rnn_tanh")
    lengths = np.full(600, 2)
    lengths[:first] = 0
    options = {"mode": GIVEN, "given": rng.integers(0, 9, (600, 3)), "given_lengths": lengths}
    found = check(cpu_kernels, model, sources, threads=2, **options)
    assert found["lengths"].tolist() == lengths.tolist()


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_shortlist(cpu_kernels, rng, mode, panels):
    tokens = np.sort(rng.choice(np.arange(4, 500), 96, replace=False))
    tokens[0] = 2
    model, sources = problem(rng, "float32", 3, V=96, tokens=tokens)
    model["panels"] = panels
    options = options_of(mode, banned=[3, int(tokens[5])])
    found = check(cpu_kernels, model, sources, **options)
    for row, length in zip(found["tokens"], found["lengths"], strict=True):
        assert np.isin(row[:length], tokens).all()


def test_given_tokens_outside_the_shortlist(cpu_kernels, rng):
    model, sources = problem(rng, "float32", 2, V=5, tokens=np.array([1, 3, 4, 8, 11]))
    options = {"mode": GIVEN, "given": np.array([[1, 0, 3], [12, 12, 11]])}
    found = check(cpu_kernels, model, sources, **options)
    assert np.isneginf(found["log_probs"]).tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_beam_is_greedy_decoding(cpu_kernels, rng, dtype):
    model, sources = problem(rng, dtype, 9, H=33, V=97, context="attention")
    for more in ({}, PENALTIES, {"banned": list(range(0, 97, 2)), "min_new_tokens": 3}):
        more = {"eos": list(range(3, 30)), "max_new_tokens": 20, **more}
        greedy = cpu_kernels.decode_sequences(model, sources, **options_of("greedy", **more))
        beam = cpu_kernels.decode_sequences(
            model, sources, **options_of("beam", slots=1, results=1, **more)
        )
        assert len(set(greedy["lengths"].tolist())) > 1
        for name in ("lengths", "tokens", "log_probs"):
            assert beam[name].tolist() == greedy[name].tolist()


PENALTIES = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "phrases": [[4, 5], [9, 8, 7]]}


@pytest.mark.parametrize("penalties", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("mode", [*MODES, "given", "ensemble"])
def test_steps_allocate_nothing(cpu_kernels, rng, mode, penalties):
    """However many there are: a call allocates as often for 70 steps as for three."""
    if cpu_kernels.allocations() < 0:
        pytest.skip("the sanitizer's operator new does not count")
    model, sources = problem(rng, "float32", 3, H=33, V=300, context="attention")
    more, counts = [(model, sources)] if mode == "ensemble" else [], []
    for steps in (3, 70):
        options = {"mode": GIVEN, "given": np.full((3, steps), 7)}
        if mode != "given":
            plain = "greedy" if mode == "ensemble" else mode
            options = options_of(plain, eos=[], max_new_tokens=steps, attentions=True, **penalties)
        before = cpu_kernels.allocations()
        found = cpu_kernels.decode_sequences(model, sources, more=more, **options)
        counts.append(cpu_kernels.allocations() - before)
        assert (found["lengths"] == steps).all()
    assert counts[0] > 10  # it does count
    assert counts[1] == counts[0]


def test_histories_grow_past_the_room_for_them(cpu_kernels, rng):
    """Past 4096 steps: what was there before is still banned from coming again."""
    model, sources = problem(rng, "float32", 1, V=97, cell="rnn_tanh")
    options = {"eos": [], "max_new_tokens": 4300, "no_repeat_ngram_size": 2, "slots": 2}
    found = cpu_kernels.decode_sequences(model, sources, mode=BEAM, results=2, **options)
    for row in found["tokens"]:
        pairs = set(itertools.pairwise(row.tolist()))
        assert len(pairs) == len(row) - 1 == 4299


@pytest.mark.parametrize("mode", MODES)
def test_long_rows(cpu_kernels, rng, mode):
    steps = 70
    model, sources = problem(rng, "float64", 2, V=97, context="attention")
    options = options_of(mode, eos=[], max_new_tokens=steps, attentions=True)
    found = check(cpu_kernels, model, sources, **options)
    assert (found["lengths"] == steps).all()
    options |= {"no_repeat_ngram_size": 2, "phrases": [[4, 5], [9, 8, 7]]}
    check(cpu_kernels, model, sources, **options)


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_bans_and_prefixes(cpu_kernels, rng, dtype, mode, panels):
    B, V = 3, 97
    model, sources = problem(rng, dtype, B, V=V, H=33)
    model["panels"] = panels
    allowed = rng.random((B, V)) < 0.3
    allowed[:, 2] = True
    options = options_of(
        mode,
        eos=[2],
        banned=[0, 31, 32, 96],
        allowed=allowed,
        min_new_tokens=3,
        no_repeat_ngram_size=1,
        prefix=np.array([[5, 0], [7, -1], [-1, -1]]),
    )
    found = check(cpu_kernels, model, sources, **options)
    per = options.get("results", 1)
    assert (found["tokens"][: 2 * per, 0] == np.repeat([5, 7], per)).all()


@pytest.mark.parametrize("mode", ["greedy", "beam", "top_k", "top_p"])
@pytest.mark.parametrize("penalty", [1.7, 0.6])
def test_repetition_penalty(cpu_kernels, rng, mode, penalty):
    model, sources = problem(rng, "float64", 3, V=97, H=33)
    options = options_of(mode, eos=[], max_new_tokens=40, prefix=np.array([[5], [7], [-1]]))
    check(cpu_kernels, model, sources, exact=False, repetition_penalty=penalty, **options)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_allowed_at_some_step(cpu_kernels, rng, mode):
    """Of six words no two of a row may be equal: the seventh step has none left."""
    model, sources = problem(rng, "float32", 3, V=6)
    options = options_of(mode, eos=[], max_new_tokens=9, no_repeat_ngram_size=1)
    found = check(cpu_kernels, model, sources, **options)
    assert (found["lengths"] <= 6).all()


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_undefined_logits(cpu_kernels, rng, dtype, bad, mode, panels):
    model, sources = problem(rng, dtype, 3, H=5, cell="rnn_relu", context="attention")
    model["panels"] = panels
    values = decode(sources["hidden"][0])
    values[1, 2] = bad
    sources["hidden"][0] = encode(values, dtype)
    found = check(cpu_kernels, model, sources, threads=2, **options_of(mode))
    assert found["undefined"] == (1, 0)
    # The output layer's concern everybody.
    weight = decode(model["output_weight"])
    weight[94, 3] = bad
    model["output_weight"] = encode(weight, dtype)
    found = cpu_kernels.decode_sequences(model, sources, **options_of(mode))
    assert found["undefined"] == (0, 0)


@pytest.mark.parametrize("mode", ["greedy", "beam", "draw", "top_p"])
def test_a_nan_anywhere_in_a_block(cpu_kernels, rng, mode):
    """Maxima over lanes may lose a NaN, sums of exponentials may not: wherever it stands."""
    model, sources = problem(rng, "float32", 3, V=130, H=5, context="attention")
    model["panels"] = True
    bias = np.zeros(130, np.float32)
    for word in range(130):
        model["output_bias"] = np.where(np.arange(130) == word, np.float32(np.nan), bias)
        found = cpu_kernels.decode_sequences(model, sources, **options_of(mode))
        assert found["undefined"] == (0, 0), word


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize("mode", ["greedy", "beam", "draw", "top_k", "top_p"])
@pytest.mark.parametrize("name", MODELS)
def test_one_source_by_several_threads(cpu_kernels, rng, name, mode, panels):
    """A single row has only the barriers that its phases need; large enough for four threads."""
    model, sources = problem(rng, "bfloat16", 3, **MODELS[name] | {"H": 66, "V": 5000})
    model["panels"] = panels
    together = cpu_kernels.decode_sequences(model, sources, threads=1, **options_of(mode))
    for b in range(3):
        alone, ids = part_of(sources, slice(b, b + 1)), np.arange(b, b + 1)
        options = options_of(mode, row_ids=ids)
        first = cpu_kernels.decode_sequences(model, alone, threads=1, **options)
        rows = len(first["tokens"])
        expected = together["tokens"][b * rows : (b + 1) * rows]
        assert first["tokens"].tolist() == expected[:, : first["tokens"].shape[1]].tolist()
        for threads in (2, 3, 4):
            for _ in range(3):
                again = cpu_kernels.decode_sequences(model, alone, threads=threads, **options)
                assert_bits(again, first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_undefined_logits_later(cpu_kernels, rng, dtype):
    """The embedding of one token is not finite: what follows it is undefined."""
    model, sources = problem(rng, dtype, 9)
    embedding = decode(model["embedding"])
    embedding[50] = np.nan
    model["embedding"] = encode(embedding, dtype)
    told = rng.integers(0, 50, (9, 6))
    told[4, 5] = told[7, 0] = 50  # the former as the last: nothing is computed behind it
    options = {"mode": GIVEN, "given": told}
    assert check(cpu_kernels, model, sources, **options)["undefined"] == (7, 1)
    told[3, 2] = 50
    assert check(cpu_kernels, model, sources, **options)["undefined"] == (3, 3)
