# SPDX-License-Identifier: MIT
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
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_bad_values(options, error, words):
    with pytest.raises(error, match=words):
        GenerationConfig(**options).validate(9)


def test_unknown_option():
    with pytest.raises(TypeError, match="unknown option max_length; known are max_new_tokens"):
        GenerationConfig().replace(max_length=20)
