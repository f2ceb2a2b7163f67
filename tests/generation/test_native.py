# SPDX-License-Identifier: MIT
"""The loop in C++ against the one in Python, on models of more than a block, a tile, a thread."""

import functools
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_ext.generation import native, native_reason

from . import soak
from .models import ALL_KINDS, make, sources

V = 233  # blocks of 96 words, and a part of one
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


@st.composite
def beams(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    options = {"num_beams": groups * draw(st.integers(1 if groups > 1 else 2, 5 // groups))}
    if groups > 1:
        options |= {
            "num_beam_groups": groups,
            "diversity_penalty": draw(st.sampled_from([0.2, 0.7])),
        }
    options["num_return_sequences"] = draw(st.integers(1, options["num_beams"]))
    options["early_stopping"] = draw(st.sampled_from([True, False, "never"]))
    options["length_penalty"] = draw(st.sampled_from([0.0, 0.4, 1.0]))
    return options


SAMPLES = st.fixed_dictionaries(
    {"do_sample": st.just(True), "top_k": st.sampled_from([0, 0, 7, None])},
    optional={
        "temperature": st.sampled_from([0.8, 2.5, 1e-42]),
        "top_p": st.sampled_from([0.9, 0.99]),
        "min_p": st.just(0.02),
        "num_return_sequences": st.integers(1, 3),
    },
)
WAYS = st.one_of(st.just({}), beams(), SAMPLES)
PENALTIES = st.fixed_dictionaries(
    {"eos_token_id": st.sampled_from([2, [2, 3, 4, 5, 6, 7, 8], None])},
    optional={
        "repetition_penalty": st.sampled_from([0.8, 1.3]),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.just([[9], [10, 11], [12, 13, 14]]),
        "suppress_tokens": st.just(list(range(3, V, 5))),
        "min_new_tokens": st.just(3),
    },
)
NAMES = (
    "prefix_tokens",
    "allowed_tokens",
    "shortlist",
    "own_shortlists",
    "output_scores",
    "row_ids",
)
ARGUMENTS = st.fixed_dictionaries({}, optional={name: st.just(True) for name in NAMES})


@functools.lru_cache
def model_of(kind, cell, dtype):
    torch.manual_seed(11 + kind)
    return make(dtype, V, hidden_size=36, num_layers=1 + kind % 2, cell=cell, **ALL_KINDS[kind])


@functools.lru_cache
def prepared_model_of(kind, cell, dtype):
    """The same, read from packed weights."""
    model = pickle.loads(pickle.dumps(model_of(kind, cell, torch.float32)))
    model.prepare_for_decoding(dtype)
    return model


WEIGHTS = st.sampled_from(
    [(make, dtype) for make in (model_of, prepared_model_of) for dtype in DTYPES]
    + [(prepared_model_of, torch.int8)]
)


@functools.lru_cache
def batch_of(size=12):
    torch.manual_seed(2)
    return sources(size, 9, V)


def arguments_of(names, rows=12):
    generator = torch.Generator().manual_seed(7)
    made = {
        "prefix_tokens": [[20 + i] * (i % 3) for i in range(rows)],
        "allowed_tokens": torch.rand(rows, V, generator=generator) < 0.7,
        "shortlist": list(range(1, V, 3)),
        "own_shortlists": [
            torch.randperm(V, generator=generator)[: 3 + 19 * i % 211].tolist() for i in range(rows)
        ],
        "output_scores": True,
        "row_ids": [(7 * i) ** 9 % 2**32 for i in range(rows)],
    }
    made = {name: made[name] for name in made if name in names}
    if "own_shortlists" in made:
        made["shortlist"] = made.pop("own_shortlists")
    return made


def expect_same(got, want, what):
    """The same bits, but for ranks: penalties have taken a logit from the log-probability in one
    loop, and the logit itself in the other."""
    for name in want._fields:
        a, b = getattr(got, name), getattr(want, name)
        if b is None:
            assert a is None, (what, name)
        elif name == "beam_scores":
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=f"{what} {name}")
        else:
            assert torch.equal(a, b), (what, name)


def expect_own_scores(model, src, lengths, found, what):
    """`score` says of the tokens what decoding said, to the bit."""
    rows = torch.arange(len(src)).repeat_interleave(len(found.lengths) // len(src))
    told = model.score(src[rows], found.sequences, lengths[rows], found.lengths)
    assert torch.equal(told.token_log_probs, found.token_log_probs), what


@given(
    kind=st.integers(0, len(ALL_KINDS) - 1),
    cell=st.sampled_from(["lstm", "gru", "rnn"]),
    weights=WEIGHTS,
    way=WAYS,
    penalties=PENALTIES,
    names=ARGUMENTS,
    seed=st.integers(0, 2**64 - 1),
    steps=st.integers(3, 40),
    hidden=st.booleans(),
)
@settings(
    max_examples=160,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_options_in_any_combination(
    kind, cell, weights, way, penalties, names, seed, steps, hidden
):
    make_model, dtype = weights
    model, (src, lengths) = make_model(kind, cell, dtype), batch_of()
    options = {"output_hidden_states": hidden, **way, **penalties, **arguments_of(names)}
    if way.get("do_sample"):
        options["seed"] = seed
    if model.decoder.attention is not None:
        options["output_attentions"] = True
        if "num_beams" in way:
            options["coverage_penalty"] = 0.3
    options.update(max_new_tokens=steps, return_dict_in_generate=True)
    got = model.generate(src, lengths, **options)
    with native.disabled():
        want = model.generate(src, lengths, **options)
    if dtype != torch.int8:  # of which the sums are not the loop's in Python
        expect_same(got, want, options)
    elif "num_beams" not in way:
        assert torch.equal(got.sequences, want.sequences), options


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        {"context": "initial_state", "num_layers": 2, "bridge": "copy"},
        {"context": "every_step", "tied_embeddings": True},
        {"attention": "additive", "attention_size": 5, "num_layers": 2},
        {"attention": "dot", "input_feeding": True, "tied_embeddings": True, "embedding_size": 20},
    ],
    ids=str,
)
def test_projections(kind, dtype):
    torch.manual_seed(8)
    model = make(torch.float32, V, hidden_size=36, proj_size=20, **kind)
    src, lengths = batch_of()
    model.prepare_for_decoding(dtype)
    assert native_reason(model) is None
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 2, "top_p": 0.9}):
        options = {"max_new_tokens": 12, "return_dict_in_generate": True, **options}
        options["output_hidden_states"] = True
        got = model.generate(src, lengths, **options)
        assert got.hidden_states.size(-1) == 20
        with native.disabled():
            want = model.generate(src, lengths, **options)
        expect_own_scores(model, src, lengths, got, options)
        if dtype != torch.int8:
            expect_same(got, want, options)
        elif "num_beams" not in options:
            assert torch.equal(got.sequences, want.sequences)


@pytest.mark.parametrize("kind", range(len(ALL_KINDS)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scores_of_given_targets(kind, dtype):
    model, (src, lengths) = model_of(kind, "lstm", dtype), batch_of()
    found = model.generate(src, lengths, max_new_tokens=9, return_dict_in_generate=True)
    for options in ({}, {"shortlist": list(range(0, V, 2))}):
        got = model.score(src, found.sequences, lengths, found.lengths, **options)
        with native.disabled():
            want = model.score(src, found.sequences, lengths, found.lengths, **options)
        expect_same(got, want, options)
        if not options:
            assert torch.equal(got.token_log_probs, found.token_log_probs)
    none = model.score(src, found.sequences, lengths, torch.zeros_like(found.lengths))
    assert torch.equal(none.token_log_probs, torch.zeros_like(none.token_log_probs))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "seed": 4, "num_return_sequences": 3},
        {"do_sample": True, "seed": 4, "top_k": 0},
        {"do_sample": True, "seed": 4, "top_k": 0, "top_p": 0.9},
    ],
    ids=str,
)
def test_more_sources_than_there_is_room_for(options):
    """Sources that wait take the place of rows that have ended: nobody's result feels it."""
    model, (src, lengths) = model_of(3, "gru", torch.float32), batch_of(600)
    options = {"max_new_tokens": 12, "return_dict_in_generate": True, **options}
    whole = model.generate(src, lengths, **options)
    assert len(set(whole.lengths.tolist())) > 3  # they do not all end together
    count = len(whole.lengths) // 600
    for rows in (torch.arange(0, 7), torch.arange(300, 320), torch.tensor([599])):
        part = model.generate(src[rows], lengths[rows], row_ids=rows, **options)
        size = part.sequences.size(1)
        among = (rows[:, None] * count + torch.arange(count)).flatten()
        assert torch.equal(part.sequences, whole.sequences[among, :size])
        assert torch.equal(part.token_log_probs, whole.token_log_probs[among, :size])
        assert torch.equal(part.sequences_scores, whole.sequences_scores[among])


def test_a_short_soak():
    result = soak.run(1200, seed=3, every=20)
    assert result["checked"] == 60
    assert result["differences"] == []
