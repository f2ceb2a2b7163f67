# SPDX-License-Identifier: MIT
"""Ensembles by the loop in C++ against the one in Python."""

import contextlib
import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_ext.generation import Ensemble, native, native_reason

from .models import ALL_KINDS, make
from .test_native import ARGUMENTS, PENALTIES, WAYS, V, arguments_of, batch_of, expect_same

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
MEMBERS = st.lists(
    st.tuples(
        st.integers(0, len(ALL_KINDS) - 1),
        st.sampled_from(["lstm", "gru", "rnn"]),
        st.sampled_from(DTYPES),
        st.sampled_from([None, None, torch.float32, torch.bfloat16, torch.int8]),
    ),
    min_size=2,
    max_size=3,
)
COMBINE = st.sampled_from(["probabilities", "log_probabilities"])


@functools.lru_cache
def model_of(kind, cell, dtype, prepared=None):
    torch.manual_seed(40 + kind)
    sizes = {"hidden_size": 24 + 4 * kind, "num_layers": 1 + kind % 2}
    model = make(dtype, V, cell=cell, **sizes, **ALL_KINDS[kind])
    model.prepare_for_decoding(prepared)
    return model


def both(members, combine, src, lengths, **options):
    ensemble = Ensemble(members, combine=combine)
    assert native_reason(ensemble) is None
    got = ensemble.generate(src, lengths, return_dict_in_generate=True, **options)
    with native.disabled():
        want = ensemble.generate(src, lengths, return_dict_in_generate=True, **options)
    return got, want


@given(
    members=MEMBERS,
    combine=COMBINE,
    way=WAYS,
    penalties=PENALTIES,
    names=ARGUMENTS,
    seed=st.integers(0, 2**64 - 1),
    steps=st.integers(3, 20),
)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_options_in_any_combination(members, combine, way, penalties, names, seed, steps):
    models, (src, lengths) = [model_of(*member) for member in members], batch_of()
    options = {**way, **penalties, **arguments_of(names)}
    if way.get("do_sample"):
        options["seed"] = seed
    if all(model.decoder.attention is not None for model in models):
        options["output_attentions"] = True
        if "num_beams" in way:
            options["coverage_penalty"] = 0.3
    got, want = both(models, combine, src, lengths, max_new_tokens=steps, **options)
    expect_same(got, want, options)


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize("dtypes", [DTYPES[:1] * 2, DTYPES[:2], DTYPES], ids=str)
def test_scores_of_given_targets(combine, dtypes):
    members = [model_of(3 + i % 2, "lstm", dtype) for i, dtype in enumerate(dtypes)]
    src, lengths = batch_of()
    ensemble = Ensemble(members, combine=combine)
    found = ensemble.generate(src, lengths, max_new_tokens=9, return_dict_in_generate=True)
    lists = [list(range(i, V, 2)) for i in range(12)]
    for options in ({"output_attentions": True}, {"shortlist": lists}):
        got = ensemble.score(src, found.sequences, lengths, found.lengths, **options)
        with native.disabled():
            want = ensemble.score(src, found.sequences, lengths, found.lengths, **options)
        expect_same(got, want, options)
    plain = ensemble.score(src, found.sequences, lengths, found.lengths)
    assert torch.equal(plain.token_log_probs, found.token_log_probs)


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
def test_words_that_models_exclude(combine):
    """Logits of -inf, in one model and in all; nothing is left to a row in the end."""
    members = [make(torch.float32, V, cell=cell) for cell in ("gru", "rnn")]
    with torch.no_grad():
        members[0].decoder.output.bias[5:] = -torch.inf
        members[1].decoder.output.bias[:100] = -torch.inf
    src, lengths = batch_of()
    for way in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 1, "top_k": 0}):
        options = {"max_new_tokens": 5, "output_scores": True, "eos_token_id": 2, **way}
        got, want = both(members, combine, src, lengths, **options)
        expect_same(got, want, way)
        if combine == "log_probabilities":  # the one has no word of the other's
            assert not got.lengths.any()
        else:
            assert (got.scores[0, 0, 5:100] == -torch.inf).all()
            assert got.scores[0, 0, :5].isfinite().all()


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
def test_logits_that_are_not_finite(combine):
    members = [make(torch.float32, V, cell=cell) for cell in ("gru", "rnn")]
    src, lengths = batch_of()
    with torch.no_grad():
        members[1].decoder.output.bias[7] = torch.nan
    for way in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 1}):
        with pytest.raises(ValueError, match="logits of row 0 are not finite at step 0"):
            Ensemble(members, combine=combine).generate(src, lengths, max_new_tokens=4, **way)
    with pytest.raises(ValueError, match="score: the logits of row 0 are not finite at step 0"):
        Ensemble(members, combine=combine).score(src, src % V, lengths)


def test_threads_and_prepared_weights():
    members = [
        make(torch.float32, 3001, hidden_size=64, **ALL_KINDS[3]),
        make(torch.float32, 3001, hidden_size=48, cell="gru", **ALL_KINDS[4]),
    ]
    members[1].prepare_for_decoding(torch.bfloat16)
    src, lengths = batch_of()
    threads, found = torch.get_num_threads(), []
    ways = ({}, {"num_beams": 3}, {"do_sample": True, "seed": 1, "top_p": 0.9})
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for way in ways:
                found.append(both(members, "probabilities", src, lengths, max_new_tokens=7, **way))
    finally:
        torch.set_num_threads(threads)
    for i, (got, want) in enumerate(found):
        expect_same(got, want, i)
        expect_same(got, found[i % len(ways)][0], i)


def test_callbacks():
    members = [model_of(3, "lstm", torch.float32), model_of(4, "gru", torch.float32)]
    src, lengths = batch_of()
    told = []
    for context in (native.disabled(), contextlib.nullcontext()):
        steps = []
        with context:
            Ensemble(members).generate(src, lengths, max_new_tokens=5, callback=steps.append)
        told.append(steps)
    for python, own in zip(*told, strict=True):
        assert torch.equal(python.tokens, own.tokens)
        assert torch.equal(python.done, own.done)
