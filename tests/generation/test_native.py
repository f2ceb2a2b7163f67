# SPDX-License-Identifier: MIT
"""The loop in C++ against the one in Python, on models of more than a block, a tile, a thread."""

import functools
import pickle
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_ext.generation import native
from seq2seq_ext.generation.predictor import Predictor
from seq2seq_ext.nn import Seq2Seq

from . import soak
from .models import ALL_KINDS, make, sources

V = 233  # blocks of 96 words, and a part of one
WAYS = st.sampled_from(
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7, "length_penalty": 0.4},
        {"num_beams": 5, "early_stopping": "never"},
        {"do_sample": True, "top_k": 7, "temperature": 0.8, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 0},
        {"do_sample": True, "top_k": 0, "temperature": 2.5, "top_p": 0.9},
        {"do_sample": True, "top_k": 0, "temperature": 1e-42},
        {"do_sample": True, "top_k": None, "min_p": 0.02, "top_p": 0.99},
    ]
)
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
NAMES = ("prefix_tokens", "allowed_tokens", "shortlist", "own_shortlists", "output_scores")
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
    }
    made = {name: made[name] for name in made if name in names}
    if "own_shortlists" in made:
        made["shortlist"] = made.pop("own_shortlists")
    return made


def expect_same(got, want, what, *, scores=True):
    """Tokens alike; what is reported the same bits, unless penalties have been at work: these take
    a logit from the log-probability in one loop, and the logit itself in the other."""
    for name in want._fields:
        a, b = getattr(got, name), getattr(want, name)
        if b is None or (not scores and a.is_floating_point()):
            assert (a is None) == (b is None), (what, name)
        elif name == "beam_scores":
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=f"{what} {name}")
        else:
            assert torch.equal(a, b), (what, name)


@given(
    kind=st.integers(0, len(ALL_KINDS) - 1),
    cell=st.sampled_from(["lstm", "gru", "rnn"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    make_model=st.sampled_from([model_of, prepared_model_of]),
    way=WAYS,
    penalties=PENALTIES,
    names=ARGUMENTS,
    seed=st.integers(0, 2**64 - 1),
    steps=st.integers(3, 40),
)
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_options_in_any_combination(
    kind, cell, dtype, make_model, way, penalties, names, seed, steps
):
    model, (src, lengths) = make_model(kind, cell, dtype), batch_of()
    options = {**way, **penalties, **arguments_of(names)}
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
    expect_same(got, want, options)


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
    assert native.Decode.takes(Predictor([model]), model.generation_config)
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 2, "top_p": 0.9}):
        options = {"max_new_tokens": 12, "return_dict_in_generate": True, **options}
        options["output_hidden_states"] = True
        got = model.generate(src, lengths, **options)
        assert got.hidden_states.size(-1) == 20
        with native.disabled():
            want = model.generate(src, lengths, **options)
        if dtype == torch.int8:  # a term of the sum is quantised
            assert torch.equal(got.sequences, want.sequences) or "num_beams" in options
        else:
            expect_same(got, want, options)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_threads_change_nothing(dtype):
    torch.manual_seed(3)
    model = make(torch.float32, 4001, hidden_size=72, **ALL_KINDS[4])
    model.prepare_for_decoding(dtype)
    src, lengths = sources(9, 9, 4001)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for options in ({}, {"num_beams": 3}, {"do_sample": True, "top_k": 0, "seed": 1}):
                options = {"max_new_tokens": 15, "return_dict_in_generate": True, **options}
                found.append(model.generate(src, lengths, **options))
    finally:
        torch.set_num_threads(threads)
    for i, other in enumerate(found[3:]):
        expect_same(other, found[i % 3], i)


def test_other_threads_run_meanwhile():
    torch.manual_seed(3)
    model = make(torch.float32, 4001, hidden_size=96, eos=None, **ALL_KINDS[3])
    src, lengths = sources(8, 9, 4001)
    done, seen = threading.Event(), []

    def decode():
        model.generate(src, lengths, max_new_tokens=150)
        done.set()

    thread = threading.Thread(target=decode)
    thread.start()
    while not done.is_set():
        seen.append(time.perf_counter())
        time.sleep(0)
    thread.join()
    assert len(seen) > 20


# --------------------------------------------------------------------------------------------------
# Prepared weights.


def test_narrower_weights_decode_as_such_a_decoder_would():
    model, (src, lengths) = model_of(4, "lstm", torch.float32), batch_of()
    model = pickle.loads(pickle.dumps(model))
    options = {"max_new_tokens": 10, "return_dict_in_generate": True, "num_beams": 3}
    prepared = model.prepare_for_decoding(torch.bfloat16)
    panels = [*prepared.panels.recurrent, prepared.panels.output]
    packed = [
        *(p for p in model.decoder.rnn.parameters() if p.dim() == 2),
        *model.decoder.combine.parameters(),
        model.decoder.output.weight,
    ]
    assert len(panels) == len(packed)
    for panel, weight in zip(panels, packed, strict=True):
        assert weight.numel() <= panel.numel()
        assert panel.dtype == torch.bfloat16
    assert prepared.memory_bytes == sum(2 * p.numel() for p in (*model.parameters(), *panels))
    got = model.generate(src, lengths, **options)
    with native.disabled():
        want = model.generate(src, lengths, **options)
    expect_same(got, want, "bfloat16")
    assert model.decoder.embedding.weight.dtype == torch.float32
    assert "_prepared" not in model.state_dict()
    assert pickle.loads(pickle.dumps(model)).prepared_weights() is None
    assert model.prepare_for_decoding(None) is None
    wide = model.generate(src, lengths, **options)
    assert not torch.equal(wide.token_log_probs, got.token_log_probs)


def test_weights_that_have_changed_are_prepared_anew():
    model, (src, lengths) = model_of(3, "gru", torch.float32), batch_of()
    model = pickle.loads(pickle.dumps(model))
    for dtype in (torch.bfloat16, torch.int8):
        first = model.prepare_for_decoding(dtype)
        assert model.prepared_weights() is first
        with torch.no_grad():
            model.decoder.output.weight.mul_(-1)
        second = model.prepared_weights()
        assert second is not first
        assert second.dtype == dtype
        fresh = pickle.loads(pickle.dumps(model))
        fresh.prepare_for_decoding(dtype)
        assert torch.equal(
            model.generate(src, lengths, max_new_tokens=5),
            fresh.generate(src, lengths, max_new_tokens=5),
        )
        with torch.no_grad():
            next(model.encoder.parameters()).add_(0.1)
        assert model.prepared_weights() is not second


def test_float32_is_packed_beside_the_model_s_own_weights():
    model, (src, lengths) = model_of(3, "gru", torch.float32), batch_of()
    model = pickle.loads(pickle.dumps(model)).train()
    before = [p.data_ptr() for p in model.parameters()]
    prepared = model.prepare_for_decoding(torch.float32)
    panels = [*prepared.panels.recurrent, prepared.panels.output]
    assert prepared.memory_bytes == sum(p.nbytes for p in panels)
    assert [p.data_ptr() for p in model.parameters()] == before
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    assert not model.decoder.rnn.steps_as_sequences
    options = {"max_new_tokens": 9, "return_dict_in_generate": True}
    got = model.generate(src, lengths, **options)
    model.prepare_for_decoding(None)
    want = model.generate(src, lengths, **options)
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(got.token_log_probs, want.token_log_probs, rtol=1e-4, atol=1e-4)


@functools.lru_cache
def wide_model(spread):
    """spread: how unequal the words' weights are, so that some words' intervals are wide."""
    torch.manual_seed(8)
    model = Seq2Seq.build(
        50, 1999, hidden_size=64, embedding_size=32, eos_token_id=[2, 7], **ALL_KINDS[4]
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        weight = model.decoder.output.weight
        weight.mul_(torch.exp(spread * torch.randn(len(weight), 1)))
        weight[7] = 0
        model.decoder.output.bias.normal_()
    return model.eval()


@pytest.mark.parametrize("rescore", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
        {"repetition_penalty": 0.7, "suppress_tokens": list(range(0, 1999, 2))},
        {"prefix_tokens": [[20 + i, 30 + i] for i in range(20)]},
        {"do_sample": True, "seed": 1, "top_k": 20},
        {"do_sample": True, "seed": 1, "top_k": 0},
    ],
    ids=", ".join,
)
def test_int8_finds_what_the_unquantised_weights_find(rescore, spread, options):
    model = wide_model(spread)
    src = torch.randint(3, 50, (20, 7))
    options = {"max_new_tokens": 30, "return_dict_in_generate": True, **options}
    try:
        model.prepare_for_decoding(torch.int8, rescore_dtype=rescore)
        got = model.generate(src, **options)
        model.prepare_for_decoding(rescore)
        want = model.generate(src, **options)
    finally:
        model.prepare_for_decoding(None)
    assert torch.equal(got.sequences, want.sequences)
    assert torch.equal(got.lengths, want.lengths)
    # The more a few words stand out, the less their errors cancel in the sum.
    error = (got.token_log_probs - want.token_log_probs).abs().max()
    assert error < (0.3 if spread else 5e-3)


def test_int8_where_every_word_may_be_the_best():
    """All logits alike: no interval rules a word out, and more survive than the lists hold."""
    torch.manual_seed(2)
    model = pickle.loads(pickle.dumps(wide_model(0.0)))
    with torch.no_grad():
        weight = model.decoder.output.weight
        weight.copy_(weight[5] + 1e-6 * torch.randn_like(weight))
        model.decoder.output.bias.zero_()
    src = torch.randint(3, 50, (3, 7))
    for options in ({}, {"repetition_penalty": 1.2}, {"do_sample": True, "top_k": 5, "seed": 3}):
        options = {"max_new_tokens": 6, "return_dict_in_generate": True, **options}
        model.prepare_for_decoding(torch.int8, rescore_dtype=torch.float32)
        got = model.generate(src, **options)
        model.prepare_for_decoding(torch.float32)
        want = model.generate(src, **options)
        assert torch.equal(got.sequences, want.sequences)
        # Every word was computed anew, so the sum is exact, too; but for those which the penalty
        # has put behind all others.
        atol = 1e-4 if "repetition_penalty" in options else 1e-6
        torch.testing.assert_close(got.token_log_probs, want.token_log_probs, rtol=1e-6, atol=atol)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": torch.float16}, "dtype must be torch.float32, .* got torch.float16"),
        ({"dtype": torch.bfloat16, "rescore_dtype": torch.float32}, "rescore_dtype is for dtype"),
        ({"dtype": None, "rescore_dtype": torch.float32}, "rescore_dtype is for dtype"),
        ({"dtype": torch.int8, "rescore_dtype": torch.float64}, "rescore_dtype must be"),
    ],
)
def test_what_cannot_be_prepared(arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of(0, "gru", torch.float32).prepare_for_decoding(**arguments)


def test_int8_refuses_weights_that_are_not_finite():
    model = pickle.loads(pickle.dumps(model_of(0, "gru", torch.float32)))
    with torch.no_grad():
        model.decoder.output.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.prepare_for_decoding(torch.int8)


def test_a_short_soak():
    result = soak.run(1200, seed=3, every=20)
    assert result["checked"] == 60
    assert result["differences"] == []
