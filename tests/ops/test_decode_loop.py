# SPDX-License-Identifier: MIT
"""The loop on a GPU against the loop in Python on the same kernels: every field the same bits."""

import pytest
import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation.predictor import Predictor
from seq2seq_ext.generation.support import problem_of
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
)

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", range(len(ALL_KINDS)))
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
    assert problem_of(predictor, config) is None
    assert "callback" in problem_of(predictor, config, print)
    assert "output_scores" in problem_of(predictor, config.replace(output_scores=True))
    assert "ensemble" in problem_of(Predictor([model, model]), config)
    words = [torch.arange(4), torch.arange(5)]
    assert "shortlists" in problem_of(Predictor([model], shortlist=words), config)
