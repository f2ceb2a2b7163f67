# SPDX-License-Identifier: MIT
"""The loop in C++: words of a row's own, and the scores of all words."""

import pickle

import pytest
import torch

from .test_native import V, batch_of, expect_same, model_of


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.9}], ids=str)
def test_shortlists_of_rows_are_those_of_all(way):
    """A row with a list of its own, and the same list for all rows: the same bits. A list of all
    words is as none."""
    model, (src, lengths) = model_of(3, "gru", torch.float32), batch_of()
    options = {"max_new_tokens": 8, "return_dict_in_generate": True, "seed": 3, **way}
    if not way.get("do_sample"):
        options.pop("seed")
    chosen = list(range(2, V, 2))
    for one, other in (([chosen] * 12, chosen), ([list(range(V))] * 12, None)):
        got = model.generate(src, lengths, shortlist=one, **options)
        want = model.generate(src, lengths, shortlist=other, **options)
        expect_same(got, want, way)


def test_a_shortlist_of_one_word():
    model, (src, lengths) = model_of(3, "gru", torch.float32), batch_of()
    lists = [[17]] * 6 + [[18, 19]] * 6
    options = {"max_new_tokens": 4, "return_dict_in_generate": True, "eos_token_id": None}
    out = model.generate(src, lengths, shortlist=lists, pad_token_id=0, **options)
    assert (out.sequences[:6] == 17).all()
    assert not out.token_log_probs[:6].any()
    assert ((out.sequences[6:] == 18) | (out.sequences[6:] == 19)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_scores_of_all_tokens(dtype):
    """They are the log-probabilities of the tokens that were chosen, and of all others beside."""
    model, (src, lengths) = model_of(4, "lstm", dtype), batch_of()
    options = {"max_new_tokens": 8, "return_dict_in_generate": True, "output_scores": True}
    for way in ({}, {"num_beams": 3, "num_return_sequences": 3}, {"do_sample": True, "seed": 1}):
        out = model.generate(src, lengths, suppress_tokens=[9, 10], **way, **options)
        assert out.scores.shape == (*out.sequences.shape, V)
        assert out.scores.dtype == out.token_log_probs.dtype
        inside = torch.arange(out.sequences.size(1)) < out.lengths[:, None]
        own = out.scores.gather(2, out.sequences[..., None])[..., 0]
        assert torch.equal(own[inside], out.token_log_probs[inside])
        assert not out.scores[~inside].any()
        assert (out.scores[inside][:, [9, 10]] == -torch.inf).all()
        rest = [v for v in range(V) if v not in (9, 10)]
        mass = out.scores[inside][:, rest].double().exp().sum(1)
        assert (mass > 0.2).all()
        assert (mass < 1 + 1e-3).all()
        assert out.scores[inside][:, rest].isfinite().all()


def test_int8_weights_and_all_scores():
    """The screen has no scores of all tokens: they are those of the unquantised weights, but for
    the sum, which is one number a step."""
    model, (src, lengths) = model_of(4, "lstm", torch.float32), batch_of()
    model = pickle.loads(pickle.dumps(model))
    options = {"max_new_tokens": 5, "return_dict_in_generate": True, "output_scores": True}
    model.prepare_for_decoding(torch.int8, rescore_dtype=torch.float32)
    got = model.generate(src, lengths, **options)
    model.prepare_for_decoding(torch.float32)
    want = model.generate(src, lengths, **options)
    assert torch.equal(got.sequences, want.sequences)
    own = got.scores.gather(2, got.sequences[..., None])[..., 0]
    assert torch.equal(own * (got.token_log_probs != 0), got.token_log_probs)
    off = got.scores - want.scores
    assert 0 < off.abs().max() < 0.01
    assert (off.amax(-1) - off.amin(-1)).max() < 1e-5
