# SPDX-License-Identifier: MIT
"""Weights that are prepared for decoding: packed, in a narrower dtype, screened in int8."""

import functools
import pickle

import pytest
import torch

from seq2seq_ext.generation import native
from seq2seq_ext.nn import Seq2Seq

from .models import ALL_KINDS
from .test_native import batch_of, expect_own_scores, expect_same, model_of


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
    assert error < (0.1 if spread else 5e-3)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_int8_says_of_given_tokens_what_it_says_of_those_it_finds(spread):
    """The sums are off by a little, however a token is found or given: see above."""
    model, lengths = wide_model(spread), torch.full((20,), 7)
    src = torch.randint(3, 50, (20, 7))
    options = {"max_new_tokens": 12, "return_dict_in_generate": True}
    try:
        model.prepare_for_decoding(torch.int8)
        for way in (
            {},
            {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
            {"suppress_tokens": list(range(0, 1999, 2))},
            {"prefix_tokens": [[20 + i, 30 + i] for i in range(20)]},
            {"num_beams": 5, "num_return_sequences": 5},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
            {"do_sample": True, "seed": 1, "top_k": 20, "num_return_sequences": 2},
            {"do_sample": True, "seed": 1, "top_k": 500},
            {"do_sample": True, "seed": 1, "top_k": 0},
            {"do_sample": True, "seed": 1, "top_k": 0, "top_p": 0.9, "min_p": 0.01},
            {"output_scores": True},
        ):
            found = model.generate(src, **options, **way)
            expect_own_scores(model, src, lengths, found, way)
    finally:
        model.prepare_for_decoding(None)


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
        # Every word was computed anew, so the sum is exact, too.
        torch.testing.assert_close(got.token_log_probs, want.token_log_probs, rtol=1e-6, atol=1e-6)


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


def test_memory_of_int8():
    """All weights in bfloat16, those of a step's layers packed besides, and the screen."""
    model = pickle.loads(pickle.dumps(model_of(3, "gru", torch.float32)))
    prepared = model.prepare_for_decoding(torch.int8)
    assert prepared.panels.output is None
    assert prepared.screen.panels.dtype == torch.uint8
    assert prepared.screen.panels.numel() == 288 * 36  # of 233 words blocks of 96
    beside = 288 * 36 + 5 * 4 * 288
    panels = sum(2 * p.numel() for p in prepared.panels.recurrent)
    assert prepared.memory_bytes == sum(2 * p.numel() for p in model.parameters()) + panels + beside


def test_int8_refuses_weights_that_are_not_finite():
    model = pickle.loads(pickle.dumps(model_of(0, "gru", torch.float32)))
    with torch.no_grad():
        model.decoder.output.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.prepare_for_decoding(torch.int8)
