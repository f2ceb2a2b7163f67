# SPDX-License-Identifier: MIT
import json

import pytest

from seq2seq_ext.generation import GenerationConfig


def test_tokens():
    config = GenerationConfig(eos_token_id=2, bos_token_id=1)
    assert config.eos_token_ids == (2,)
    assert config.start_token_id == 1
    assert config.fill_token_id == 2
    config = config.replace(eos_token_id=[3, 4], pad_token_id=0, decoder_start_token_id=5)
    assert config.eos_token_ids == (3, 4)
    assert config.start_token_id == 5
    assert config.fill_token_id == 0
    with pytest.raises(ValueError, match="decoder_start_token_id or bos_token_id must be given"):
        GenerationConfig().start_token_id  # noqa: B018


def test_round_trip():
    config = GenerationConfig(eos_token_id=(2, 3), bos_token_id=1, max_new_tokens=7)
    data = config.to_dict()
    assert data == {"eos_token_id": [2, 3], "bos_token_id": 1, "max_new_tokens": 7}
    assert GenerationConfig(**data).to_dict() == data
    config = config.replace(bad_words_ids=((1,), (2, 3)), early_stopping="never", num_beams=3)
    data = json.loads(json.dumps(config.to_dict()))
    assert data["bad_words_ids"] == [[1], [2, 3]]
    again = GenerationConfig(**data)
    again.validate(9)
    assert again.to_dict() == data


def test_bans_of_one_token():
    config = GenerationConfig(suppress_tokens=[5, 3], bad_words_ids=[[4], [1, 2], [5]])
    assert config.banned_token_ids == (3, 4, 5)
    assert GenerationConfig().banned_token_ids == ()


def test_rows_a_source():
    assert GenerationConfig().slots == 1
    assert GenerationConfig(num_beams=4, num_return_sequences=2).slots == 4
    assert GenerationConfig(do_sample=True, num_return_sequences=2).slots == 2


BAD = [
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1, got 0"),
    ({"max_new_tokens": 3.0}, TypeError, "max_new_tokens must be an int, got float"),
    ({"min_new_tokens": -1}, ValueError, "min_new_tokens must be at least 0"),
    ({"min_new_tokens": 200}, ValueError, "min_new_tokens must be at most max_new_tokens"),
    ({"eos_token_id": 9}, ValueError, r"eos_token_id must lie in \[0, 9\), got 9"),
    ({"eos_token_id": [1, -2]}, ValueError, "eos_token_id must be at least 0"),
    ({"pad_token_id": "x"}, TypeError, "pad_token_id must be an int, got str"),
    ({"bos_token_id": True}, TypeError, "bos_token_id must be an int, got bool"),
    ({"eos_token_id": list(range(9)), "min_new_tokens": 1}, ValueError, "no token to choose"),
    ({"suppress_tokens": [9]}, ValueError, r"suppress_tokens must lie in \[0, 9\), got 9"),
    ({"suppress_tokens": list(range(9))}, ValueError, "suppress_tokens leaves no token"),
    (
        {"suppress_tokens": list(range(8)), "eos_token_id": 8, "min_new_tokens": 1},
        ValueError,
        "no token to choose",
    ),
    ({"bad_words_ids": [[0], [1, 9]]}, ValueError, r"bad_words_ids must lie in \[0, 9\), got 9"),
    ({"bad_words_ids": [[]]}, ValueError, "bad_words_ids must hold no empty phrase"),
    ({"bad_words_ids": [3]}, TypeError, "bad_words_ids must be a sequence of ids, got int"),
    ({"suppress_tokens": 3}, TypeError, "suppress_tokens must be a sequence of ids, got int"),
    ({"suppress_tokens": "ab"}, TypeError, "suppress_tokens must be a sequence of ids, got str"),
    (
        {"suppress_tokens": list(range(8)), "bad_words_ids": [[8]]},
        ValueError,
        "leaves no token to choose",
    ),
    ({"do_sample": 1}, TypeError, "do_sample must be a bool, got int"),
    ({"temperature": 0}, ValueError, "temperature must be finite and greater than 0, got 0"),
    ({"temperature": float("inf")}, ValueError, "temperature must be finite and greater than 0"),
    ({"temperature": "1"}, TypeError, "temperature must be a number, got str"),
    ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty must be finite and greater"),
    ({"max_new_tokens": 2**63}, ValueError, "max_new_tokens must be at most 2147483647"),
    ({"top_k": 2**31}, ValueError, "top_k must be at most 2147483647"),
    (
        {"do_sample": True, "num_return_sequences": 10**6},
        ValueError,
        "num_return_sequences must be at most 65536 for a source, got 1000000",
    ),
    ({"num_beams": 10**6}, ValueError, "num_beams must be at most 4096, got 1000000"),
    ({"top_k": -1}, ValueError, "top_k must be at least 0, got -1"),
    ({"top_k": 1.5}, TypeError, "top_k must be an int, got float"),
    ({"top_p": 1.1}, ValueError, r"top_p must lie in \[0, 1\], got 1.1"),
    ({"top_p": float("nan")}, ValueError, r"top_p must lie in \[0, 1\], got nan"),
    ({"min_p": -0.1}, ValueError, r"min_p must lie in \[0, 1\], got -0.1"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": 2**64}, ValueError, r"seed must be at most 18446744073709551615"),
    ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size must be at least 0"),
    ({"num_beams": 0}, ValueError, "num_beams must be at least 1, got 0"),
    ({"num_return_sequences": 2}, ValueError, r"at most num_beams \(1\) unless do_sample"),
    ({"num_beams": 2, "num_return_sequences": 3}, ValueError, r"at most num_beams \(2\)"),
    ({"num_beams": 2, "do_sample": True}, ValueError, "num_beams above 1 and do_sample exclude"),
    ({"early_stopping": "maybe"}, ValueError, "early_stopping must be True, False or 'never'"),
    ({"length_penalty": float("inf")}, ValueError, "length_penalty must be finite, got inf"),
    ({"length_penalty": 900.0}, ValueError, "length_penalty must keep max_new_tokens"),
    ({"coverage_penalty": -1}, ValueError, "coverage_penalty must be finite and at least 0"),
    ({"num_beams": 4, "num_beam_groups": 3}, ValueError, "num_beam_groups must divide num_beams"),
    ({"num_beams": 4, "num_beam_groups": 2}, ValueError, "diversity_penalty above 0 go together"),
    ({"num_beams": 4, "diversity_penalty": 2}, ValueError, "diversity_penalty above 0 go together"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_bad_values(options, error, words):
    with pytest.raises(error, match=words):
        GenerationConfig(**options).validate(9)


def test_unknown_option():
    with pytest.raises(TypeError, match="unknown option max_length; known are max_new_tokens"):
        GenerationConfig().replace(max_length=20)


def test_beams_with_too_many_candidates():
    config = GenerationConfig(num_beams=4000)
    config.validate(4000)  # so few words are all of them
    words = r"num_beams must be fewer: 4000 beams with 8000 candidates each are more than 16777216"
    with pytest.raises(ValueError, match=words):
        config.replace(eos_token_id=2).validate(32000)
    config.replace(num_beams=2800, eos_token_id=2).validate(32000)
