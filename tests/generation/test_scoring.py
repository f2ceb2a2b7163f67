# SPDX-License-Identifier: MIT
"""Forced decoding: against the training forward, and against what decoding says of itself."""

import math

import pytest
import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation import Ensemble
from seq2seq_ext.nn import Seq2Seq

from .models import EOS, KINDS, make, sources

MODES = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 2, "temperature": 2.0, "seed": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 3, "early_stopping": True},
    "penalties": {
        "num_beams": 3,
        "repetition_penalty": 2.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": [0, 14, 15],
        "min_new_tokens": 3,
    },
}


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_scores_are_those_of_the_training_forward(options):
    model = make(torch.float64, **options)
    src, lengths = sources()
    tgt = torch.randint(9, 23, (13, 6))  # no end of sequence
    found = model.score(src, tgt, lengths)
    fed = torch.cat([torch.ones(13, 1, dtype=torch.int64), tgt[:, :-1]], 1)
    with torch.no_grad():
        log_probs = model(src, lengths, fed).log_softmax(-1).gather(-1, tgt[..., None])[..., 0]
    torch.testing.assert_close(found.token_log_probs, log_probs)
    torch.testing.assert_close(found.sequences_scores, log_probs.sum(1))
    torch.testing.assert_close(found.normalized_scores, log_probs.mean(1))
    assert (found.lengths == 6).all()


MORE = {
    **MODES,
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.6},
    "coverage": {"num_beams": 3, "coverage_penalty": 0.4},
    "top_k": {"do_sample": True, "seed": 1, "top_k": 5, "temperature": 1.5},
    "nucleus": {"do_sample": True, "seed": 1, "top_k": 0, "top_p": 0.8, "min_p": 0.02},
    "prefix": {"prefix_tokens": [[9 + i, 10][: i % 3] for i in range(13)]},
    "allowed": {"allowed_tokens": torch.arange(23) % 3 > 0, "num_beams": 2},
    "shortlist": {"shortlist": [9, 12, 14, 15, 20], "num_beams": 2},
}


@pytest.mark.parametrize("what", ["prepared", "int8", "probabilities", "log_probabilities"])
def test_forced_scores_of_prepared_weights_and_ensembles(what):
    """In every mode, to the bit."""
    members = [make(**KINDS[4]), make(cell="gru", **KINDS[3])]
    members[0].prepare_for_decoding(torch.int8 if what == "int8" else torch.bfloat16)
    model = Ensemble(members, combine=what) if "prob" in what else members[0]
    src, lengths = sources()
    for mode, options in MORE.items():
        out = model.generate(
            src, lengths, max_new_tokens=9, return_dict_in_generate=True, **options
        )
        rows = torch.arange(13).repeat_interleave(len(out.lengths) // 13)
        words = {"shortlist": options["shortlist"]} if "shortlist" in options else {}
        found = model.score(src[rows], out.sequences, lengths[rows], out.lengths, **words)
        torch.testing.assert_close(found.token_log_probs, out.token_log_probs, rtol=0, atol=1e-5)
        if _backend.available("cpu"):
            assert torch.equal(found.token_log_probs, out.token_log_probs), mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", KINDS[2:5], ids=str)
def test_forced_scores_are_the_scores_of_decoding(options, mode):
    model = make(**options)
    src, lengths = sources()
    arguments = {
        "max_new_tokens": 9,
        "return_dict_in_generate": True,
        "length_penalty": 0.7,
        "output_attentions": model.decoder.attention is not None,
        "suppress_tokens": [0],  # padding is padding
    }
    out = model.generate(src, lengths, **{**arguments, **MODES[mode]})
    count = len(out.sequences) // len(src)
    found = model.score(
        src.repeat_interleave(count, 0),
        out.sequences,
        lengths.repeat_interleave(count, 0),
        out.lengths,
        length_penalty=0.7,
        output_attentions=model.decoder.attention is not None,
    )
    real = out.sequences_scores > -math.inf
    assert real[::count].all()
    # Ends are found where none are given: decoding leaves nothing behind them but padding.
    again = model.score(
        src.repeat_interleave(count, 0), out.sequences, lengths.repeat_interleave(count, 0)
    )
    assert torch.equal(again.lengths[real], out.lengths[real])
    for name in ("token_log_probs", "sequences_scores", "normalized_scores", "attentions"):
        if getattr(out, name) is not None:
            mine, theirs = getattr(found, name)[real], getattr(out, name)[real]
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
            if _backend.available("cpu"):  # the same kernels: the same bits
                assert torch.equal(mine, theirs)


def test_where_targets_end():
    model = Seq2Seq.build(9, 9, hidden_size=4, embedding_size=4, eos_token_id=[2, 3])
    src = torch.full((6, 2), 5)
    tgt = torch.tensor(
        [[5, 2, 5, 5], [5, 5, 5, 3], [2, 2, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0], [5, 5, 5, 5]]
    )
    assert model.score(src, tgt).lengths.tolist() == [2, 4, 1, 1, 0, 4]
    assert model.score(src, tgt, pad_token_id=None).lengths.tolist() == [2, 4, 1, 4, 4, 4]
    assert model.score(src, tgt, eos_token_id=None).lengths.tolist() == [4, 4, 2, 1, 0, 4]
    given = model.score(src, tgt, tgt_lengths=[0, 1, 2, 3, 4, 0])
    assert given.lengths.tolist() == [0, 1, 2, 3, 4, 0]
    assert given.token_log_probs.count_nonzero(1).tolist() == [0, 1, 2, 3, 4, 0]
    assert given.sequences_scores[0] == given.normalized_scores[0] == 0


def test_shortlists():
    model = make(torch.float64)
    src, lengths = sources()
    tgt = torch.randint(9, 12, (13, 4))
    tgt[3, 2] = 20
    common = model.score(src, tgt, lengths, shortlist=[9, 10, 11])
    rows = model.score(src, tgt, lengths, shortlist=[[11, 9, 10, 9]] * 13)
    torch.testing.assert_close(common.token_log_probs, rows.token_log_probs)
    assert common.token_log_probs[3, 2] == -math.inf
    fed = torch.cat([torch.ones(13, 1, dtype=torch.int64), tgt[:, :-1]], 1)
    with torch.no_grad():
        logits = model(src, lengths, fed)
    out = torch.ones(23, dtype=torch.bool)
    out[[9, 10, 11, *EOS]] = False  # the ends are always in
    expected = logits.masked_fill(out, -math.inf).log_softmax(-1)
    expected = expected.gather(-1, tgt[..., None])[..., 0]
    torch.testing.assert_close(common.token_log_probs, expected)


def test_empty_batches_and_targets():
    model = make()
    none = torch.zeros(0, 5, dtype=torch.int64)
    assert model.score(none, none).token_log_probs.shape == (0, 5)
    src, lengths = sources()
    found = model.score(src, torch.zeros(13, 0, dtype=torch.int64), lengths)
    assert found.token_log_probs.shape == (13, 0)
    assert not found.sequences_scores.any()


def test_bad_calls():
    model = make()
    src, lengths = sources()
    tgt = torch.full((13, 3), 9)
    for error, words, call in (
        (TypeError, "score: unknown option num_beams; known are bos", {"num_beams": 2}),
        (ValueError, "tgt must have the source's 13 rows, got 12", {"tgt": tgt[1:]}),
        (IndexError, r"tgt must hold ids in \[0, 23\), got 23", {"tgt": tgt + 14}),
        (TypeError, "tgt must be int64 or int32", {"tgt": tgt.float()}),
        (ValueError, "tgt must have 2 dimensions", {"tgt": tgt[0]}),
        (ValueError, r"tgt_lengths must lie in \[0, 3\]", {"tgt_lengths": [4] * 13}),
        (ValueError, r"tgt_lengths must have shape \(13,\)", {"tgt_lengths": [1]}),
        (TypeError, "src must be a tensor", {"src": [[1]]}),
    ):
        with pytest.raises(error, match=words):
            model.score(**{"src": src, "tgt": tgt, "src_lengths": lengths, **call})
    plain = make(context="every_step")
    with pytest.raises(ValueError, match="score: output_attentions needs a decoder with context"):
        plain.score(src, tgt, lengths, output_attentions=True)


def test_logits_that_are_not_finite_are_refused():
    model = make()
    src, lengths = sources()
    with torch.no_grad():
        model.decoder.embedding.weight[9] = torch.nan
    tgt = torch.full((13, 3), 10)
    tgt[4, 1] = 9
    with pytest.raises(ValueError, match="score: the logits of row 4 are not finite at step 2"):
        model.score(src, tgt, lengths)


def test_the_model_trains_on():
    model = make(dropout=0.5).train()
    src, lengths = sources()
    found = model.score(src, torch.full((13, 3), 9), lengths)
    assert model.training
    assert not any(t.is_inference() for t in found if t is not None)
