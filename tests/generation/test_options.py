# SPDX-License-Identifier: MIT
"""Options in any combination, on every kind of model, against decoding in plain Python."""

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import oracle
from .models import ALL_KINDS, sentences, tiny

V = 7


@functools.lru_cache
def model_of(kind, cell, layers):
    return tiny(vocab=V, seed=31 + kind, cell=cell, num_layers=layers, **ALL_KINDS[kind])


MODELS = st.tuples(
    st.integers(0, len(ALL_KINDS) - 1),
    st.sampled_from(["lstm", "gru", "rnn"]),
    st.sampled_from([1, 2]),
)
TOKENS = st.integers(0, V - 1)
PENALTIES = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 6), "eos_token_id": st.sampled_from([2, [2, 5], [3, 4, 6]])},
    optional={
        "min_new_tokens": st.integers(0, 1),
        "repetition_penalty": st.sampled_from([0.8, 1.2, 3.0]),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.lists(st.lists(TOKENS, min_size=1, max_size=3), max_size=3),
        "suppress_tokens": st.lists(TOKENS, max_size=2),
    },
)
SAMPLING = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1), "do_sample": st.just(True)},
    optional={
        "temperature": st.sampled_from([0.4, 1.7]),
        "top_k": st.sampled_from([0, 1, 3, 100]),
        "top_p": st.sampled_from([0.0, 0.5, 0.9]),
        "min_p": st.sampled_from([0.05, 0.3, 1.0]),
        "num_return_sequences": st.integers(1, 3),
    },
)
BEAMS = st.fixed_dictionaries(
    {"num_beams": st.integers(2, 5)},
    optional={
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.6, 3.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
    },
)
LISTS = st.lists(st.lists(TOKENS, max_size=4), min_size=5, max_size=5)
CONSTRAINTS = st.fixed_dictionaries(
    {}, optional={"prefix": LISTS, "allowed": LISTS, "shortlist": LISTS}
)
COUNT = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def decode(model, options, constraints):
    """The batch's output, and each row as the oracle sees it."""
    model, src, lengths, rows = model_of(*model)
    arguments = {}
    if "prefix" in constraints:  # no token behind an end, none too many
        ends = set(model.generation_config.replace(**options).eos_token_ids)
        limit = options["max_new_tokens"]
        prefix = [[v for v in row if v not in ends][:limit] for row in constraints["prefix"]]
        constraints = {**constraints, "prefix": prefix}
        arguments["prefix_tokens"] = prefix
    if "allowed" in constraints:
        allowed = [{0, *row} for row in constraints["allowed"]]
        constraints = {**constraints, "allowed": allowed}
        arguments["allowed_tokens"] = torch.tensor([[v in r for v in range(V)] for r in allowed])
    if "shortlist" in constraints:
        arguments["shortlist"] = constraints["shortlist"]
        constraints = {**constraints, "shortlist": list(map(set, constraints["shortlist"]))}
    out = model.generate(src, lengths, return_dict_in_generate=True, **options, **arguments)
    row_keys = {"row": list(range(len(rows)))}
    return out, sentences(rows, options, **constraints, **row_keys)


def same_row(out, at, tokens, log_probs):
    n = int(out.lengths[at])
    assert out.sequences[at, :n].tolist() == tokens
    assert out.token_log_probs[at, :n].tolist() == pytest.approx(log_probs, rel=1e-9, abs=1e-9)
    assert float(out.sequences_scores[at]) == pytest.approx(sum(log_probs), rel=1e-9, abs=1e-9)
    assert not out.token_log_probs[at, n:].any()


@given(model=MODELS, options=PENALTIES, constraints=CONSTRAINTS)
@COUNT
def test_greedy(model, options, constraints):
    out, rows = decode(model, options, constraints)
    for at, sentence in enumerate(rows):
        same_row(out, at, *oracle.greedy(sentence))


@given(model=MODELS, penalties=PENALTIES, sampling=SAMPLING, constraints=CONSTRAINTS)
@COUNT
def test_sampling(model, penalties, sampling, constraints):
    options = {**penalties, **sampling}
    out, rows = decode(model, options, constraints)
    count = options.get("num_return_sequences", 1)
    for at, sentence in enumerate(rows):
        for number in range(count):
            same_row(out, at * count + number, *oracle.sample(sentence, number))


@given(model=MODELS, penalties=PENALTIES, beams=BEAMS, constraints=CONSTRAINTS, data=st.data())
@COUNT
def test_beam_search(model, penalties, beams, constraints, data):
    count, options = beams["num_beams"], {**penalties, **beams}
    options["num_return_sequences"] = count
    if "attention" in ALL_KINDS[model[0]] and data.draw(st.booleans()):
        options["coverage_penalty"] = 0.3
    groups = data.draw(st.sampled_from([n for n in (1, 2, 3) if count % n == 0]))
    if groups > 1:
        options |= {"num_beam_groups": groups, "diversity_penalty": 0.7}
    out, rows = decode(model, options, constraints)
    for at, sentence in enumerate(rows):
        expected = oracle.beam_search(sentence)
        for i in range(count):
            if i >= len(expected):
                assert out.lengths[at * count + i] == 0
                assert out.beam_scores[at * count + i] == -torch.inf
                continue
            rank, tokens = expected[i]
            log_probs = [sentence.log_probs(tokens[:t])[v] for t, v in enumerate(tokens)]
            same_row(out, at * count + i, tokens, log_probs)
            assert float(out.beam_scores[at * count + i]) == pytest.approx(rank, rel=1e-9, abs=1e-9)
