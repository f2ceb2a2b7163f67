# SPDX-License-Identifier: MIT
"""What is defined where nothing sensible can be done, and the errors that name their argument."""

import math

import pytest
import torch

from seq2seq_ext.generation import GenerationConfig
from seq2seq_ext.nn import Seq2Seq

from .models import EOS, KINDS, make, sources

MODES = [
    {},
    {"do_sample": True, "num_return_sequences": 2, "seed": 0},
    {"do_sample": True, "top_k": 0, "top_p": 0.5, "seed": 0},
    {"num_beams": 3, "num_return_sequences": 3},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 4},
]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)


def decode(model, mode, **options):
    torch.manual_seed(7)  # the same sources every time
    src, lengths = sources()
    arguments = {"max_new_tokens": 8, "return_dict_in_generate": True, **mode, **options}
    return model.generate(src, lengths, **arguments), arguments.get("num_return_sequences", 1)


@every_mode
def test_rows_with_nan_are_refused_by_row_and_step(mode):
    model = make()
    src, lengths = sources()
    with torch.no_grad():
        model.encoder.embedding.weight[src[4, 0]] = torch.nan
    first = int((src == src[4, 0]).any(1).nonzero()[0])
    with pytest.raises(ValueError, match=f"logits of row {first} are not finite at step 0"):
        model.generate(src, lengths, **mode)
    with pytest.raises(ValueError, match=f"logits of row {first} are not finite at step 0"):
        model.generate(src, lengths, repetition_penalty=2.0, no_repeat_ngram_size=2, **mode)


@every_mode
def test_nan_in_a_later_step(mode):
    model = make()
    with torch.no_grad():
        model.decoder.embedding.weight[11] = torch.nan
    src, lengths = sources()
    prefix = [[]] * 6 + [[10, 11]] + [[]] * 6
    options = {"suppress_tokens": [11], "prefix_tokens": prefix, **mode}
    with pytest.raises(ValueError, match="logits of row 6 are not finite at step 2"):
        model.generate(src, lengths, **options)


@every_mode
def test_infinite_logits(mode):
    model = make()
    with torch.no_grad():
        model.decoder.output.bias[3] = math.inf
    with pytest.raises(ValueError, match="logits of row 0 are not finite at step 0"):
        decode(model, mode)


@every_mode
def test_a_token_without_probability_is_never_chosen(mode):
    model = make()
    with torch.no_grad():
        model.decoder.output.bias[9:22] = -math.inf
    out, _ = decode(model, mode)
    assert out.token_log_probs.isfinite().all()
    assert ((out.sequences < 9) | (out.sequences == 22)).all()


@every_mode
def test_a_row_ends_where_every_token_is_banned(mode):
    """Three tokens are allowed, none of them twice, and no end: three steps, then nothing."""
    model = make()
    allowed = torch.zeros(23, dtype=torch.bool)
    allowed[[9, 10, 11]] = True
    out, count = decode(model, mode, allowed_tokens=allowed, no_repeat_ngram_size=1)
    real = out.sequences_scores > -math.inf
    assert real.view(13, count)[:, 0].all()
    assert (out.lengths[real] == 3).all()
    assert (out.sequences[real].sort(1).values == torch.tensor([9, 10, 11])).all()
    assert out.token_log_probs.isfinite().all()


@every_mode
def test_a_row_ends_at_once_where_every_token_is_banned(mode):
    model = make()
    allowed = torch.ones(13, 23, dtype=torch.bool)
    allowed[2] = False
    allowed[2, EOS] = True
    out, count = decode(model, mode, allowed_tokens=allowed, min_new_tokens=1)
    lengths = out.lengths.view(13, count)
    assert not lengths[2].any()
    assert (lengths[torch.arange(13) != 2][:, 0] > 0).all()
    assert out.sequences_scores.view(13, count)[2, 0] == 0


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_more_beams_than_tokens(early_stopping, groups):
    model = make(vocab=4, eos=2)
    lengths = torch.tensor([2, 1, 2])
    src = torch.tensor([[1, 3], [3, 0], [2, 1]])
    options = {"num_beams": 10, "num_return_sequences": 10, "early_stopping": early_stopping}
    if groups > 1:
        options |= {"num_beam_groups": groups, "diversity_penalty": 1.0}
    options["return_dict_in_generate"] = True
    out = model.generate(src, lengths, max_new_tokens=1, **options)
    there = out.lengths.view(3, 10) > 0
    assert there.sum(1).tolist() == [min(4 * groups, 10)] * 3
    assert torch.equal(there.flatten(), out.beam_scores > -math.inf)
    assert torch.equal(there.flatten(), out.sequences_scores > -math.inf)
    if groups == 1:
        assert out.sequences.view(3, 10)[:, :4].sort(1).values.tolist() == [[0, 1, 2, 3]] * 3
    two = model.generate(src, lengths, max_new_tokens=2, **options)
    assert (two.lengths.view(3, 10)[:, 0] > 0).all()


@every_mode
def test_the_end_first(mode):
    model = make()
    with torch.no_grad():
        model.decoder.output.bias[EOS[0]] = 1e4
    out, count = decode(model, mode)
    assert (out.lengths.view(13, count)[:, 0] == 1).all()
    assert (out.sequences.view(13, count, -1)[:, 0, 0] == EOS[0]).all()
    assert (out.sequences_scores.view(13, count)[:, 0] == 0).all()


@every_mode
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_empty_sources(options, mode):
    model = make(**options)
    src, lengths = sources()
    lengths[5] = 0
    out = model.generate(src, lengths, max_new_tokens=5, return_dict_in_generate=True, **mode)
    assert out.token_log_probs.isfinite().all()
    assert (out.lengths.view(13, -1)[5, 0] > 0).all()


@every_mode
def test_empty_batches(mode):
    model = make()
    out = model.generate(
        torch.zeros(0, 5, dtype=torch.int64),
        return_dict_in_generate=True,
        output_attentions=True,
        output_scores=True,
        prefix_tokens=[],
        shortlist=torch.zeros(0, 4, dtype=torch.int64),
        **mode,
    )
    assert out.sequences.shape == (0, 0)
    assert out.lengths.shape == out.sequences_scores.shape == out.normalized_scores.shape == (0,)
    assert out.attentions.shape == (0, 0, 5)
    assert out.scores.shape == (0, 0, 23)


@every_mode
def test_prefixes(mode):
    model = make()
    prefix = [[]] * 10 + [[9], [10, 11, 12, 13, 14, 15, 16, 17], [9, EOS[1]]]
    out, count = decode(model, mode, prefix_tokens=prefix, suppress_tokens=[9, 12])
    rows = out.sequences.view(13, count, -1)
    assert (rows[10, 0, 0] == 9).all()  # what is forced is allowed
    assert rows[11, 0].tolist() == prefix[11]  # as long as the limit
    assert out.lengths.view(13, count)[11, 0] == 8
    assert rows[12, 0, :2].tolist() == [9, EOS[1]]
    assert out.lengths.view(13, count)[12, 0] == 2
    assert not (rows[:10] == 9).any()
    tensor = torch.full((13, 9), -1)
    for row, tokens in enumerate(prefix):
        tensor[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    again, _ = decode(model, mode, prefix_tokens=tensor, suppress_tokens=[9, 12])
    assert torch.equal(again.sequences, out.sequences)
    assert torch.equal(again.token_log_probs, out.token_log_probs)


MASK = torch.ones(13, 23, dtype=torch.bool)
NONE = MASK.clone()
NONE[7] = False
BAD = [
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1, got 0"),
    (
        {"prefix_tokens": [[9] * 6] * 13, "max_new_tokens": 5},
        ValueError,
        r"prefix_tokens must be at most max_new_tokens \(5\) long, got 6",
    ),
    (
        {"prefix_tokens": [[]] * 12 + [[2, 9]]},
        ValueError,
        "prefix_tokens must have no token behind eos_token_id 2, as row 12 has",
    ),
    ({"prefix_tokens": [[1]]}, ValueError, "prefix_tokens must hold 13 rows, one for each source"),
    ({"prefix_tokens": [1] * 13}, TypeError, "prefix_tokens must be a tensor of ids or a list of"),
    ({"prefix_tokens": torch.ones(13)}, TypeError, "prefix_tokens must be int64 or int32"),
    ({"prefix_tokens": torch.ones(2, 2).int()}, ValueError, r"prefix_tokens must have shape \(13"),
    ({"prefix_tokens": [[23]] * 13}, ValueError, r"prefix_tokens must hold ids in \[0, 23\), got"),
    (
        {"prefix_tokens": torch.tensor([[9, -1, 9]]).expand(13, -1)},
        ValueError,
        "prefix_tokens must have its -1 at the end of row 0",
    ),
    ({"allowed_tokens": NONE}, ValueError, "allowed_tokens leaves no token to choose in row 7"),
    ({"allowed_tokens": MASK.int()}, TypeError, "allowed_tokens must be bool, got torch.int32"),
    ({"allowed_tokens": MASK[:, 1:]}, ValueError, r"allowed_tokens must have shape \(23,\) or"),
    ({"allowed_tokens": [True]}, TypeError, "allowed_tokens must be a tensor, got list"),
    ({"shortlist": [1, 23]}, ValueError, r"shortlist must hold ids in \[0, 23\), got 23"),
    ({"shortlist": []}, ValueError, "shortlist must hold 13 rows"),
    ({"shortlist": 4}, TypeError, "shortlist must be a tensor of ids or a list of lists"),
    ({"shortlist": torch.ones(3)}, TypeError, "shortlist must be int64 or int32"),
    (
        {"shortlist": torch.zeros(0).long(), "eos_token_id": None, "pad_token_id": 0},
        ValueError,
        "shortlist must hold at least one id",
    ),
    ({"row_ids": [0] * 12}, ValueError, r"row_ids must have shape \(13,\), one for each source"),
    ({"row_ids": [-1] * 13}, ValueError, r"row_ids must lie in \[0, 2\*\*32\), got -1"),
    ({"row_ids": torch.ones(13)}, TypeError, "row_ids must be int64 or int32"),
    ({"callback": 3}, TypeError, "callback must be callable, got int"),
    ({"temperature": 0.5}, ValueError, "temperature has no effect without do_sample"),
    ({"top_k": 5, "num_beams": 2}, ValueError, "top_k has no effect without do_sample"),
    ({"seed": 5}, ValueError, "seed has no effect without do_sample"),
    ({"early_stopping": True}, ValueError, "early_stopping has no effect without num_beams above"),
    ({"coverage_penalty": 0.1}, ValueError, "coverage_penalty has no effect without num_beams"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=lambda x: str(x)[:40])
def test_errors_name_their_argument(options, error, words):
    model = make()
    src, lengths = sources()
    with pytest.raises(error, match=words) as caught:
        model.generate(src, lengths, **options)
    assert str(caught.value).startswith("generate: ")


def test_errors_of_the_source():
    model = make()
    for src, error, words in (
        ([[1]], TypeError, "generate: src must be a tensor of token ids, got list"),
        (torch.ones(3).long(), ValueError, r"generate: src must have shape \(B, S\), got \(3,\)"),
        (torch.ones(3, 2), TypeError, "Encoder: src must be int64 or int32"),
        (torch.ones(3, 0).long(), ValueError, "Encoder: src must have at least one position"),
    ):
        with pytest.raises(error, match=words):
            model.generate(src)


def test_options_of_the_model_may_wait_for_their_time():
    config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, temperature=0.5, early_stopping=True, max_new_tokens=3
    )
    model = Seq2Seq.build(9, 9, hidden_size=4, embedding_size=4)
    src = torch.full((2, 3), 5)
    greedy = model.generate(src, generation_config=config)
    assert greedy.size(0) == 2
    assert model.generate(src, generation_config=config, num_beams=2).size(0) == 2
    assert model.generate(src, generation_config=config, do_sample=True).size(0) == 2


def test_context_without_attention():
    model = make(context="every_step")
    src, lengths = sources()
    with pytest.raises(ValueError, match="coverage_penalty needs a decoder with context"):
        model.generate(src, lengths, num_beams=2, coverage_penalty=0.2)


@every_mode
def test_a_forced_token_that_the_model_excludes(mode):
    """Its logit is -inf: nothing is left, and the row ends."""
    model = make()
    src, lengths = sources(3)
    with torch.no_grad():
        model.decoder.output.bias[9] = -torch.inf
    options = {"prefix_tokens": [[9], [11, 9], [12]], "max_new_tokens": 4, **mode}
    out = model.generate(src, lengths, return_dict_in_generate=True, eos_token_id=2, **options)
    count = len(out.lengths) // 3
    assert not out.lengths[:count].any()
    assert (out.lengths[count : 2 * count].max(), out.lengths[2 * count :].max()) == (1, 4)
    assert not (out.sequences == 9).any()
