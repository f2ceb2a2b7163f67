# SPDX-License-Identifier: MIT
"""What the loop on a GPU may choose, and what is told to it, against the loop in Python on the same
kernels: every field the same bits, but for ranks that a penalty has been at."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_ext.generation import native
from tests.generation.models import ALL_KINDS, EOS
from tests.ops.cases import dtype_name
from tests.ops.decode_loop import (
    BACKENDS,
    BEAMS,
    DTYPES,
    GROUPS,
    SAMPLES,
    V,
    batch_of,
    compare,
    expect_same,
    generate,
    model_of,
    on,
    only_the_loop,
)

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


HISTORIES = [
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "suppress_tokens": list(range(14, V))},
    {"bad_words_ids": [[w, v] for w in range(9, 60) for v in range(w % 3, V, 3)] + [[7, 8, 9]]},
]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda o: ",".join(o))
@pytest.mark.parametrize(
    "way", [{}, BEAMS, GROUPS, {**SAMPLES, "top_k": 6}, {**SAMPLES, "top_k": 0}], ids=str
)
def test_what_a_row_holds_already(module, backend, way, history):
    model, batch = model_of(), batch_of(4)
    options = {"max_new_tokens": 14, "eos_token_id": 2, **way}
    found = compare(backend, model, batch, **options, **history)
    model, src, lengths = on(backend, model, *batch)
    free = generate(model, src, lengths, **options)
    same = found.sequences.shape == free.sequences.shape
    assert not (same and torch.equal(found.sequences, free.sequences)), "it changes nothing"


PREFIX = [[], [30], [40, 41, 42], [50, EOS[0]]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_new_tokens": 4},
        {"suppress_tokens": [30, 41], "no_repeat_ngram_size": 1, "repetition_penalty": 1.3},
        {"max_new_tokens": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "way", [{}, BEAMS, GROUPS, {**SAMPLES, "top_k": 6}, {**SAMPLES, "top_k": 0}], ids=str
)
def test_prefix(module, backend, way, options):
    found = compare(backend, model_of(), batch_of(4), **way, **options, prefix_tokens=PREFIX)
    count = len(found.lengths) // 4
    for i, row in enumerate(found.sequences.tolist()):
        wanted = PREFIX[i // count]
        assert row[: len(wanted)] == wanted or int(found.lengths[i]) == 0
    model = model_of()
    with pytest.raises(ValueError, match="at most max_new_tokens"):
        model.generate(*batch_of(4), **way, max_new_tokens=2, prefix_tokens=PREFIX)


@pytest.mark.parametrize(
    "way", [{}, BEAMS, GROUPS, {**SAMPLES, "top_k": 6}, {**SAMPLES, "top_k": 0}], ids=str
)
@pytest.mark.parametrize("end", [3, 4], ids=["end in it", "end not in it"])
def test_shortlist(module, backend, way, end):
    """Of all rows: it holds the end and what is forced."""
    words = list(range(0, V, 3))
    options = {"repetition_penalty": 1.2, "bad_words_ids": [[9], [6, 12], [5, 6]]}
    allowed = torch.ones(V, dtype=torch.bool, device="cpu")
    allowed[18:60] = False
    arguments = {"shortlist": words, "allowed_tokens": allowed, "prefix_tokens": [[9], [], [12, 6]]}
    options |= {"eos_token_id": end, "min_new_tokens": 2, "output_attentions": True}
    found = compare(backend, model_of(), batch_of(3), **way, **options, **arguments)
    for row, length in zip(found.sequences, found.lengths, strict=True):
        assert set(row[:length].tolist()) <= {*words, end}


WAYS = st.sampled_from(
    [
        {},
        BEAMS,
        GROUPS,
        {"num_beams": 4, "early_stopping": "never", "length_penalty": 0.4},
        {**SAMPLES, "top_k": 7, "temperature": 0.8},
        {**SAMPLES, "top_k": 0},
        {**SAMPLES, "top_k": 0, "temperature": 2.5, "min_p": 0.02},
    ]
)
OPTIONS = st.fixed_dictionaries(
    {"eos_token_id": st.sampled_from([2, EOS, None]), "max_new_tokens": st.integers(3, 17)},
    optional={
        "repetition_penalty": st.sampled_from([0.8, 1.3]),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.just([[9], [10, 11], [12, 13, 14]]),
        "suppress_tokens": st.just(list(range(3, V, 5))),
        "min_new_tokens": st.just(3),
        "prefix_tokens": st.just([[], [20], [33], [], [21]]),
        "shortlist": st.just([*range(1, V, 3), 20, 33, 21]),
        "output_hidden_states": st.just(True),
    },
)


@given(
    kind=st.integers(0, len(ALL_KINDS) - 1),
    dtype=st.sampled_from(DTYPES),
    way=WAYS,
    options=OPTIONS,
    allow=st.booleans(),
)
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_options_in_any_combination(module, backend, kind, dtype, way, options, allow):
    model = model_of(kind, ("lstm", "gru", "rnn")[kind % 3], dtype)
    if allow:
        generator = torch.Generator(device="cpu").manual_seed(7)
        allowed = torch.rand(5, V, generator=generator, device="cpu") < 0.7
        options = {**options, "allowed_tokens": allowed}
    if model.decoder.attention is not None:
        options = {**options, "output_attentions": True}
        if "num_beams" in way:
            options["coverage_penalty"] = 0.3
    compare(backend, model, batch_of(5), **way, **options)


@pytest.mark.parametrize(
    "way", [{}, BEAMS, GROUPS, {**SAMPLES, "top_k": 4}, {**SAMPLES, "top_k": 0}], ids=str
)
def test_nothing_is_left(module, backend, way):
    """No token may come twice, and there are six."""
    options = {"no_repeat_ngram_size": 1, "max_new_tokens": 12, "eos_token_id": None}
    found = compare(backend, model_of(vocab=6), batch_of(3, 6), **way, **options)
    assert found.lengths.eq(6).any()
    assert found.lengths.le(6).all()


@pytest.mark.parametrize("way", [{}, BEAMS, GROUPS, SAMPLES], ids=str)
def test_the_end_comes_first(module, backend, way):
    allowed = torch.zeros(V, dtype=torch.bool, device="cpu")
    allowed[EOS[0]] = True
    options = {"allowed_tokens": allowed, "repetition_penalty": 1.5, "output_hidden_states": True}
    found = compare(backend, model_of(), batch_of(3), **way, **options)
    assert found.lengths.max() == 1


def test_one_token(module, backend):
    """A vocabulary of one, and more beams than that."""
    model = model_of(vocab=1)
    src = torch.zeros(2, 4, dtype=torch.int64, device="cpu")
    batch = src, torch.full((2,), 4, device="cpu")
    options = {"repetition_penalty": 1.5, "eos_token_id": None, "max_new_tokens": 3}
    for way in ({}, BEAMS, GROUPS, {**SAMPLES, "top_k": 1}):
        compare(backend, model, batch, **options, **way)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("kind", [0, 2, 3, 4])
def test_scores_of_given_targets(module, backend, kind, dtype):
    """The same as the loop in Python gives, and as decoding gave; each row alone, too."""
    model, src, lengths = on(backend, model_of(kind, dtype=dtype), *batch_of(6))
    options = {"output_attentions": model.decoder.attention is not None}
    made = generate(model, src, lengths, max_new_tokens=9, **BEAMS, **options)
    rows, ends = made.sequences[::2], made.lengths[::2]
    rows = torch.cat([rows, rows.flip(1)], dim=1)
    ends = torch.where(torch.arange(6, device=ends.device) < 4, ends, 2 * ends)
    ends[1] = 0
    with only_the_loop():
        got = model.score(src, rows, lengths, ends, **options)
    with native.disabled():
        expect_same(got, model.score(src, rows, lengths, ends, **options))
    assert torch.equal(got.token_log_probs[0, : ends[0]], made.token_log_probs[0, : ends[0]])
    if got.attentions is not None:
        assert torch.equal(
            got.attentions[0, : ends[0]], made.attentions[0, : ends[0]].to(got.attentions)
        )
    with only_the_loop():
        alone = model.score(src[3:4, : lengths[3]], rows[3:4], None, ends[3:4])
    assert torch.equal(alone.token_log_probs, got.token_log_probs[3:4])


def test_scores_within_a_shortlist(module, backend):
    """What it leaves out has no probability, and is read on all the same."""
    model, src, lengths = on(backend, model_of(), *batch_of(3))
    rows = torch.arange(12, device=src.device).view(3, 4) + 9
    for words in (list(range(0, V, 2)), [*range(V)]):
        with only_the_loop():
            got = model.score(src, rows, lengths, shortlist=words)
        with native.disabled():
            expect_same(got, model.score(src, rows, lengths, shortlist=words))
        inside = torch.isin(rows, torch.tensor([*words, *EOS], device=src.device))
        assert torch.equal(got.token_log_probs > -torch.inf, inside)


def test_no_targets(module, backend):
    model, src, lengths = on(backend, model_of(), *batch_of(3))
    rows = torch.zeros(3, 4, dtype=torch.int64, device=src.device)
    for count, ends in ((3, [0, 0, 0]), (0, [])):
        found = model.score(src[:count], rows[:count], lengths[:count], ends)
        assert found.sequences_scores.tolist() == [0.0] * count
