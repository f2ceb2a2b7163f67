# SPDX-License-Identifier: MIT
"""The loop on a GPU against the loop in Python on the same kernels: every field the same bits, but
for ranks that a penalty has been at."""

import contextlib
import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_ext import _backend, ops
from seq2seq_ext.generation import native
from seq2seq_ext.generation.predictor import Predictor
from tests.generation.models import EOS, KINDS, make, sources
from tests.ops.cases import device_of, dtype_name

BACKENDS = ("cuda_host", pytest.param("cuda", marks=pytest.mark.cuda))
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
V = 233  # two tiles of 128 words
BEAMS = {"num_beams": 3, "num_return_sequences": 2}
GROUPS = {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 4}
SAMPLES = {"do_sample": True, "seed": 5, "num_return_sequences": 2}

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@functools.lru_cache
def model_of(kind=4, cell="lstm", dtype=torch.float32, vocab=V, hidden=36, embedding=16):
    with torch.device("cpu"):
        torch.manual_seed(11 + kind)
        sizes = {"hidden_size": hidden, "embedding_size": embedding, "num_layers": 1 + kind % 2}
        sizes["bidirectional"] = hidden % 2 == 0
        sizes["eos"] = EOS if vocab > max(EOS) else 2
        if KINDS[kind].get("tied_embeddings"):
            sizes["embedding_size"] = hidden
        return make(dtype, vocab, cell=cell, **{**sizes, **KINDS[kind]})


def batch_of(rows=5, vocab=V):
    with torch.device("cpu"):
        torch.manual_seed(2)
        return sources(rows, 9, vocab)


def on(backend, *things):
    return [thing.to(device_of(backend)) for thing in things]


@contextlib.contextmanager
def only_the_loop():
    """Decodes by the loop on the device, once, and by no other."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        decode = ops.kernels.decode
        patch.setattr(ops.kernels, "decode", lambda *a: (calls.append(1), decode(*a))[1])
        patch.setitem(native._DTYPES, "cpu", DTYPES)  # the CPU's own loop takes no float16
        yield
    assert calls == [1]


def generate(model, src, lengths, **options):
    with only_the_loop():
        return model.generate(src, lengths, return_dict_in_generate=True, **options)


def expect_same(got, want, *, ranks=True):
    """ranks: to the bit. The repetition penalty takes a logit from the log-probability in one loop,
    and the logit itself in the other; coverage is summed up in another order on a GPU."""
    for name, value in zip(want._fields, want, strict=True):
        found = getattr(got, name)
        assert (found is None) == (value is None), name
        if name == "beam_scores" and value is not None and not ranks:
            torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6)
        else:
            assert value is None or torch.equal(found, value), name


def compare(backend, model, batch, **options):
    model, src, lengths = on(backend, model, *batch)
    options = {"max_new_tokens": 9, **options}
    got = generate(model, src, lengths, **options)
    with native.disabled():
        want = model.generate(src, lengths, return_dict_in_generate=True, **options)
    penalized = options.get("repetition_penalty", 1) != 1 or options.get("coverage_penalty")
    expect_same(got, want, ranks=not penalized)
    return got


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_models(module, backend, kind, cell, dtype):
    way = [{}, BEAMS, {**SAMPLES, "top_k": 5}][(kind + len(cell)) % 3]
    found = compare(backend, model_of(kind, cell, dtype), batch_of(4), **way)
    assert len(set(found.lengths.tolist())) > 1 or found.lengths.max() > 1


@pytest.mark.parametrize("way", [{}, BEAMS, SAMPLES], ids=["greedy", "beam", "sample"])
@pytest.mark.parametrize(("rows", "vocab", "hidden", "embedding"), [(1, 5, 7, 3), (9, 37, 13, 11)])
def test_odd_sizes(module, backend, way, rows, vocab, hidden, embedding):
    model = model_of(1 + 3 * (rows > 1), "lstm", torch.bfloat16, vocab, hidden, embedding)
    compare(backend, model, batch_of(rows, vocab), **way, eos_token_id=2)


@pytest.mark.parametrize(
    "options",
    [
        {"eos_token_id": None},
        {"max_new_tokens": 1},
        {"max_new_tokens": 40, "eos_token_id": 2},
        {"min_new_tokens": 3},
        {"min_new_tokens": 3, "suppress_tokens": [*EOS[:3], *range(20, V, 3)]},
        {"bad_words_ids": [[9], [100]], "suppress_tokens": list(range(0, V, 2))},
        {**BEAMS, "early_stopping": True, "length_penalty": 0.0},
        {**BEAMS, "early_stopping": "never", "length_penalty": 1.7, "min_new_tokens": 2},
        {**BEAMS, "eos_token_id": None},
        {**BEAMS, "max_new_tokens": 1, "eos_token_id": 2},
        {**BEAMS, "length_penalty": -0.5, "suppress_tokens": list(range(3, V, 5))},
        {"num_beams": 10, "num_return_sequences": 10},  # more candidates than lists hold
        {**SAMPLES, "top_k": 0, "temperature": 1.9, "min_new_tokens": 4},
        {**SAMPLES, "top_k": 70, "temperature": 0.4},
        {**SAMPLES, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "seed": 2**64 - 3},
        {**SAMPLES, "top_k": 0, "top_p": 0.9, "temperature": 2.5},
        {**SAMPLES, "top_k": 0, "min_p": 0.02, "suppress_tokens": list(range(3, V, 7))},
        {**SAMPLES, "top_k": 1, "top_p": 0.1},
        {**SAMPLES, "top_k": 0, "temperature": 1e-42},
        {"output_attentions": True, "output_hidden_states": True},
        {**BEAMS, "output_attentions": True, "output_hidden_states": True},
        {**SAMPLES, "output_attentions": True, "eos_token_id": 2},
        {**GROUPS, "output_hidden_states": True, "length_penalty": 0.3},
        {**GROUPS, "eos_token_id": 2, "diversity_penalty": 1e-3, "early_stopping": True},
        {**GROUPS, "num_beam_groups": 6, "early_stopping": "never", "max_new_tokens": 15},
        {**GROUPS, "eos_token_id": None, "coverage_penalty": 0.4, "output_attentions": True},
        {**BEAMS, "coverage_penalty": 0.2, "early_stopping": "never"},
        {"num_beams": 10, "num_beam_groups": 2, "diversity_penalty": 9.0},  # more than lists hold
    ],
    ids=str,
)
def test_options(module, backend, options):
    compare(backend, model_of(), batch_of(3), **options)


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
    kind=st.integers(0, len(KINDS) - 1),
    dtype=st.sampled_from(DTYPES),
    way=WAYS,
    options=OPTIONS,
    allow=st.booleans(),
)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
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


@pytest.mark.parametrize("way", [{}, BEAMS, {**SAMPLES, "top_k": 0}], ids=["pick", "beam", "draw"])
@pytest.mark.parametrize("each", [False, True], ids=["common", "by row"])
def test_allowed_tokens(module, backend, way, each):
    allowed = torch.rand(4 if each else 1, V, device="cpu") < 0.3
    allowed[:, EOS[0]] = True
    options = {"allowed_tokens": allowed if each else allowed[0], "min_new_tokens": 2}
    found = compare(backend, model_of(), batch_of(4), **way, **options)
    rows = allowed.expand(4, V).repeat_interleave(len(found.lengths) // 4, dim=0)
    for row, tokens, length in zip(rows, found.sequences.cpu(), found.lengths.cpu(), strict=True):
        assert row[tokens[:length]].all()


@pytest.mark.parametrize(
    "way", [{}, BEAMS, {**SAMPLES, "top_k": 4}, {**SAMPLES, "top_k": 0}], ids=str
)
def test_nothing_is_allowed(module, backend, way):
    """Only ends are allowed, and these not yet."""
    allowed = torch.zeros(V, dtype=torch.bool, device="cpu")
    allowed[EOS] = True
    options = {"allowed_tokens": allowed, "min_new_tokens": 2}
    found = compare(backend, model_of(), batch_of(3), **way, **options)
    assert found.lengths.eq(0).all()


@pytest.mark.parametrize(
    "way", [{}, BEAMS, {**SAMPLES, "top_k": 4}, {**SAMPLES, "top_k": 0}], ids=str
)
def test_steps_between_looks_at_what_is_done(module, backend, way, monkeypatch):
    """They change nothing, nor does how they are repeated."""
    model, src, lengths = on(backend, model_of(), *batch_of())
    options = {"max_new_tokens": 21, **way}
    want = generate(model, src, lengths, **options)
    for loop in ("queue", *("replay", "while")[: 2 * (backend == "cuda")]):
        monkeypatch.setenv("SEQ2SEQ_EXT_DECODE_LOOP", loop)
        for steps in ("1", "6", "30"):
            monkeypatch.setenv("SEQ2SEQ_EXT_DECODE_STEPS", steps)
            expect_same(generate(model, src, lengths, **options), want)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
@pytest.mark.parametrize(
    "way",
    [
        {},
        BEAMS,
        {**GROUPS, "coverage_penalty": 0.3, "repetition_penalty": 1.2, "output_attentions": True},
        {**SAMPLES, "top_k": 6, "top_p": 0.9, "no_repeat_ngram_size": 2},
        {**SAMPLES, "top_k": 0, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_a_row_alone_is_the_row_in_a_batch(module, backend, way, dtype):
    model, src, lengths = on(backend, model_of(dtype=dtype), *batch_of(13))
    whole = generate(model, src, lengths, max_new_tokens=9, **way)
    count = len(whole.lengths) // len(src)
    for row in (0, 3, 12):
        length, own = int(lengths[row]), slice(count * row, count * (row + 1))
        options = {**way, **({"row_ids": [row]} if "seed" in way else {})}
        alone = generate(model, src[row : row + 1, :length], None, max_new_tokens=9, **options)
        longest = alone.sequences.size(1)
        assert torch.equal(alone.lengths, whole.lengths[own])
        assert torch.equal(alone.sequences, whole.sequences[own, :longest])
        assert torch.equal(alone.token_log_probs, whole.token_log_probs[own, :longest])
        assert torch.equal(alone.sequences_scores, whole.sequences_scores[own])
        if "coverage_penalty" in way:
            assert torch.equal(alone.beam_scores, whole.beam_scores[own])
            assert torch.equal(alone.attentions, whole.attentions[own, :longest, :length])


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
        assert torch.equal(got.attentions[0, : ends[0]], made.attentions[0, : ends[0]].float())
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


@pytest.mark.parametrize(
    "way",
    [
        {},
        BEAMS,
        GROUPS,
        {**SAMPLES, "top_k": 4},
        {**SAMPLES, "top_k": 0, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_logits_that_are_not_finite(module, backend, way):
    """From the step on at which a row has a certain token."""
    model, src, lengths = on(backend, model_of(), *batch_of())
    found = generate(model, src, lengths, max_new_tokens=9, **way)
    with torch.no_grad():
        token = int(found.sequences[-1, 0])
        kept = model.decoder.embedding.weight[token].clone()
        model.decoder.embedding.weight[token] = torch.nan
        try:
            with pytest.raises(ValueError, match=r"row \d+ are not finite at step [1-8]"):
                model.generate(src, lengths, max_new_tokens=9, eos_token_id=None, **way)
            rows = torch.full((5, 3), token, device=src.device)
            with pytest.raises(ValueError, match="row 0 are not finite at step 1"):
                model.score(src, rows, lengths, [2, 3, 0, 1, 3])
        finally:
            model.decoder.embedding.weight[token] = kept


def test_no_rows(module, backend):
    model, src, lengths = on(backend, model_of(), *batch_of())
    for way in ({}, BEAMS):
        found = generate(model, src[:0], lengths[:0], max_new_tokens=3, **way)
        assert found.sequences.shape == (0, 0)


def test_what_is_left_to_python(module, backend, monkeypatch):
    model = model_of()
    src, lengths = batch_of(2)
    if backend == "cuda_host":  # the op refuses what Python has to leave to Python
        refused = "the loop on a GPU does not take"
        with pytest.raises(RuntimeError, match=f"{refused} a callback"):
            model.generate(src, lengths, max_new_tokens=3, callback=lambda step: None)
        for option in ({"output_scores": True}, {"shortlist": [[9, 10], [11]]}):
            with pytest.raises(RuntimeError, match=f"{refused} shortlists of rows and scores"):
                model.generate(src, lengths, max_new_tokens=3, **option)
    monkeypatch.setattr(Predictor, "device", torch.device("cuda"))
    monkeypatch.setattr(_backend, "problem_of", lambda device: None)
    predictor = Predictor([model])
    config = model.generation_config
    assert native.Decode.takes(predictor, config)
    assert not native.Decode.takes(predictor, config, print)
    assert not native.Decode.takes(predictor, config.replace(output_scores=True))
    assert not native.Decode.takes(Predictor([model, model]), config)
    words = [torch.arange(4), torch.arange(5)]
    assert not native.Decode.takes(Predictor([model], shortlist=words), config)
