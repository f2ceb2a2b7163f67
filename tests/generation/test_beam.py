# SPDX-License-Identifier: MIT
"""Beam search against every sequence there is, and against beam search in plain Python."""

import pytest
import torch

from seq2seq_ext.generation import native, search
from seq2seq_ext.generation.beam import BeamSearch

from . import oracle
from .models import KINDS, make, sentences, sources, tiny

# Options of the search; each changes what is found (see the last test).
PENALTIES = [
    {},
    {"length_penalty": 0.0},
    {"length_penalty": -0.7},
    {"length_penalty": 2.0},
    {"coverage_penalty": 0.4},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[0], [3, 3]]},
    {"suppress_tokens": [3]},
    {"min_new_tokens": 3},
    {
        "length_penalty": 0.6,
        "coverage_penalty": 0.2,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[0, 3]],
        "min_new_tokens": 2,
    },
]


def check(out, row, count, expected):
    """Rows row * count ... of the output are these [(rank, tokens)], then nothing."""
    for i in range(count):
        at = row * count + i
        n = int(out.lengths[at])
        if i >= len(expected):
            assert n == 0
            assert out.beam_scores[at] == out.sequences_scores[at] == -torch.inf
            continue
        rank, tokens = expected[i]
        assert out.sequences[at, :n].tolist() == tokens
        assert float(out.beam_scores[at]) == pytest.approx(rank, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("penalties", PENALTIES, ids=str)
def test_wide_beams_find_the_best_of_all_sequences(penalties):
    options = {
        "num_beams": 128,  # more than there are hypotheses
        "num_return_sequences": 6,
        "max_new_tokens": 4,
        "early_stopping": "never",
        **penalties,
    }
    model, src, lengths, rows = tiny()
    out = model.generate(src, lengths, return_dict_in_generate=True, **options)
    for row, sentence in enumerate(sentences(rows, options)):
        check(out, row, 6, oracle.hypotheses(sentence)[:6])


def test_wide_beams_with_prefixes_masks_and_shortlists():
    options = {"num_beams": 64, "num_return_sequences": 5, "max_new_tokens": 3}
    options["early_stopping"] = "never"
    model, src, lengths, rows = tiny(vocab=5)
    prefix = [[3], [], [4, 4], [1, 2], [0]]
    allowed = [{0, 1, 2}, {3, 2}, {2, 4, 1}, {1}, {0, 1, 2, 3, 4}]
    shortlist = [[0, 3], [3, 4, 1], [1], [4], [0, 1, 3, 4]]
    mask = torch.tensor([[v in row for v in range(5)] for row in allowed])
    for given in ({"prefix"}, {"allowed"}, {"shortlist"}, {"prefix", "allowed", "shortlist"}):
        arguments = {"prefix": prefix, "allowed": allowed, "shortlist": map(set, shortlist)}
        arguments = {k: list(v) for k, v in arguments.items() if k in given}
        out = model.generate(
            src,
            lengths,
            return_dict_in_generate=True,
            prefix_tokens=prefix if "prefix" in given else None,
            allowed_tokens=mask if "allowed" in given else None,
            shortlist=shortlist if "shortlist" in given else None,
            **options,
        )
        for row, sentence in enumerate(sentences(rows, options, **arguments)):
            check(out, row, 5, oracle.hypotheses(sentence)[:5])


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("penalties", PENALTIES, ids=str)
def test_narrow_beams_search_as_the_oracle_does(penalties, early_stopping):
    model, src, lengths, rows = tiny(vocab=7, seed=50)
    for beams in (2, 3, 5):
        options = {
            "num_beams": beams,
            "num_return_sequences": beams,
            "max_new_tokens": 6,
            "early_stopping": early_stopping,
            **penalties,
        }
        out = model.generate(src, lengths, return_dict_in_generate=True, **options)
        for row, sentence in enumerate(sentences(rows, options)):
            check(out, row, beams, oracle.beam_search(sentence))


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("groups", [(2, 2), (4, 2), (6, 3), (3, 3)], ids=str)
def test_groups_search_as_the_oracle_does(groups, early_stopping):
    model, src, lengths, rows = tiny(vocab=7, seed=50)
    for penalty in (0.1, 1.0, 50.0):
        for more in ({}, PENALTIES[-1]):
            options = {
                "num_beams": groups[0],
                "num_beam_groups": groups[1],
                "diversity_penalty": penalty,
                "num_return_sequences": groups[0],
                "max_new_tokens": 6,
                "early_stopping": early_stopping,
                **more,
            }
            out = model.generate(src, lengths, return_dict_in_generate=True, **options)
            for row, sentence in enumerate(sentences(rows, options)):
                check(out, row, groups[0], oracle.beam_search(sentence))


def test_a_large_diversity_penalty_makes_groups_differ():
    model, src, lengths, _ = tiny(vocab=7, seed=50)
    options = {"num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 1e6, "min_new_tokens": 1}
    out = model.generate(src, lengths, num_return_sequences=3, max_new_tokens=4, **options)
    for first in out[:, 0].view(5, 3).tolist():
        assert len(set(first)) == 3


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_several_ends(early_stopping):
    model, src, lengths, rows = tiny(vocab=7, seed=50)
    for ends in ([2, 3], [1, 2, 4, 5], []):
        for beams in (2, 4):
            options = {
                "eos_token_id": ends,
                "num_beams": beams,
                "num_return_sequences": beams,
                "max_new_tokens": 5,
                "early_stopping": early_stopping,
            }
            out = model.generate(src, lengths, return_dict_in_generate=True, **options)
            for row, sentence in enumerate(sentences(rows, options)):
                check(out, row, beams, oracle.beam_search(sentence))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("penalties", PENALTIES, ids=str)
def test_one_beam_is_greedy_decoding(penalties, early_stopping, monkeypatch):
    model, src, lengths, _ = tiny(vocab=7, seed=50)
    penalties = {k: v for k, v in penalties.items() if k != "coverage_penalty"}
    options = {"max_new_tokens": 8, "return_dict_in_generate": True, **penalties}
    want = model.generate(src, lengths, **options)
    monkeypatch.setattr(search, "Picking", lambda config, _: BeamSearch(config, lengths, 4))
    config = model.generation_config.replace(early_stopping=early_stopping)
    with native.disabled():  # it is the loop in Python that was patched
        got = model.generate(src, lengths, generation_config=config, **options)
    assert got.beam_scores is not None
    assert len(set(want.lengths.tolist())) > 1 or penalties
    assert torch.equal(got.sequences, want.sequences)
    assert torch.equal(got.token_log_probs, want.token_log_probs)
    assert torch.equal(got.sequences_scores, want.sequences_scores)


def test_every_penalty_changes_what_is_found():
    """So that none of the tests above passes with an option that does nothing."""
    model, src, lengths, _ = tiny(vocab=7, seed=50)
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 6}
    plain = model.generate(src, lengths, **options)
    for penalties in PENALTIES[1:]:
        other = model.generate(src, lengths, **options, **penalties)
        assert not torch.equal(plain, other), penalties


def test_ranks_are_reported_scores_where_there_are_no_penalties():
    model, src, lengths, _ = tiny(vocab=7, seed=50)
    out = model.generate(
        src,
        lengths,
        num_beams=4,
        num_return_sequences=4,
        length_penalty=0.8,
        max_new_tokens=6,
        return_dict_in_generate=True,
    )
    assert (out.beam_scores.view(5, 4).diff(dim=1) <= 0).all()
    torch.testing.assert_close(out.beam_scores, out.normalized_scores)
    torch.testing.assert_close(
        out.normalized_scores, out.sequences_scores / out.lengths.double() ** 0.8
    )
    torch.testing.assert_close(out.sequences_scores, out.token_log_probs.sum(1))


def test_the_best_of_n_does_not_depend_on_n():
    model, src, lengths, _ = tiny(vocab=7, seed=50)
    three = model.generate(src, lengths, num_beams=4, num_return_sequences=3, max_new_tokens=6)
    one = model.generate(src, lengths, num_beams=4, max_new_tokens=6)
    assert torch.equal(three[::3, : one.size(1)], one)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_beams_share_their_sources_memory(options):
    """A step of several rows a source, and one whose memory is repeated for each row."""
    model = make(**options)
    src, lengths = sources()
    rows, tokens = torch.arange(13).repeat_interleave(3), torch.randint(0, 23, (39,))
    with torch.inference_mode():
        memory, state = model.decoder.prepare(model.encoder(src, lengths), invariant=True)
        state = state.index_select(rows)
        shared = model.decoder.step(tokens, state, memory, beams=3)
        repeated = model.decoder.step(tokens, state, memory.index_select(rows))
    for mine, theirs in zip(shared.state.hidden, repeated.state.hidden, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(shared.features, repeated.features)
    if repeated.weights is not None:
        assert shared.weights.shape == (39, 9)
        torch.testing.assert_close(shared.weights, repeated.weights)
        torch.testing.assert_close(shared.context, repeated.context)
