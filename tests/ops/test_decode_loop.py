# SPDX-License-Identifier: MIT
"""The loop on a GPU against the loop in Python on the same kernels: every field the same bits."""

import functools

import pytest
import torch

from seq2seq_ext import _backend, ops
from seq2seq_ext.generation import native
from seq2seq_ext.generation.predictor import Predictor
from tests.generation.models import EOS, KINDS, make, sources
from tests.ops.cases import device_of, dtype_name

BACKENDS = ("cuda_host", pytest.param("cuda", marks=pytest.mark.cuda))
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
V = 233  # two tiles of 128 words
BEAMS = {"num_beams": 3, "num_return_sequences": 2}
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


def generate(model, src, lengths, **options):
    """By the loop on the device, and by no other."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        decode = ops.kernels.decode
        patch.setattr(ops.kernels, "decode", lambda *a: (calls.append(1), decode(*a))[1])
        patch.setitem(native._DTYPES, "cpu", DTYPES)  # the CPU's own loop takes no float16
        found = model.generate(src, lengths, return_dict_in_generate=True, **options)
    assert calls == [1]
    return found


def expect_same(got, want):
    for name, value in zip(want._fields, want, strict=True):
        found = getattr(got, name)
        assert (found is None) == (value is None), name
        assert value is None or torch.equal(found, value), name


def compare(backend, model, batch, **options):
    model, src, lengths = on(backend, model, *batch)
    options = {"max_new_tokens": 9, **options}
    got = generate(model, src, lengths, **options)
    with native.disabled():
        want = model.generate(src, lengths, return_dict_in_generate=True, **options)
    expect_same(got, want)
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
    ],
    ids=str,
)
def test_options(module, backend, options):
    compare(backend, model_of(), batch_of(3), **options)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
@pytest.mark.parametrize(
    "way", [{}, BEAMS, {**SAMPLES, "top_k": 6, "top_p": 0.9}, {**SAMPLES, "top_k": 0}], ids=str
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


@pytest.mark.parametrize(
    "way", [{}, BEAMS, {**SAMPLES, "top_k": 4}, {**SAMPLES, "top_k": 0}], ids=str
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
        finally:
            model.decoder.embedding.weight[token] = kept


def test_no_rows(module, backend):
    model, src, lengths = on(backend, model_of(), *batch_of())
    for way in ({}, BEAMS):
        found = generate(model, src[:0], lengths[:0], max_new_tokens=3, **way)
        assert found.sequences.shape == (0, 0)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, True),
        ({"num_beams": 3, "length_penalty": 0.3}, True),
        ({"do_sample": True, "top_p": 0.9}, True),
        ({"suppress_tokens": [3], "bad_words_ids": [[4]], "min_new_tokens": 2}, True),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, False),
        ({"num_beams": 4, "coverage_penalty": 0.5}, False),
        ({"repetition_penalty": 1.2}, False),
        ({"no_repeat_ngram_size": 2}, False),
        ({"bad_words_ids": [[3, 4]]}, False),
        ({"output_attentions": True}, False),
        ({"output_hidden_states": True}, False),
        ({"output_scores": True}, False),
    ],
    ids=str,
)
def test_what_is_left_to_python(module, backend, options, taken, monkeypatch):
    model = model_of()
    config = model.generation_config.replace(max_new_tokens=3, **options)
    src, lengths = batch_of(2)
    if backend == "cuda_host":  # the op refuses what Python has to leave to Python
        if taken:
            generate(model, src, lengths, max_new_tokens=3, **options)
        elif not config.output_scores:
            with pytest.raises(RuntimeError, match="the loop on a GPU does not take"):
                model.generate(src, lengths, max_new_tokens=3, **options)
    monkeypatch.setattr(Predictor, "device", torch.device("cuda"))
    monkeypatch.setattr(_backend, "problem_of", lambda device: None)
    predictor = Predictor([model])
    constraints = native.Constraints(torch.arange(2))
    assert native.Decode.takes(predictor, config, constraints) == taken
    assert not native.Decode.takes(predictor, config)  # scores of given targets
    assert not native.Decode.takes(predictor, config, constraints, print)
    prefix = native.Constraints(torch.arange(2), prefix=torch.ones(2, 1, dtype=torch.int64))
    assert not native.Decode.takes(predictor, config, prefix)
