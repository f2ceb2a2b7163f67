# SPDX-License-Identifier: MIT
"""Asking for a few tokens of each row finds what asking for all of them finds."""

import pytest
import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation.proposals import Proposals

from .models import make, sources

V = 60
PENALTIES = {
    "none": {},
    "suppressed": {"suppress_tokens": list(range(9, 40))},
    "ngrams": {"no_repeat_ngram_size": 2},
    "every token once": {"no_repeat_ngram_size": 1},
    "repetition": {"repetition_penalty": 1.5},
    "strong repetition": {"repetition_penalty": 50.0, "min_new_tokens": 12},
    "phrases": {"bad_words_ids": [[v, v] for v in range(9, 60)]},
    "everything": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[9], [30, 31], [40, 41, 42]],
        "suppress_tokens": [50, 51],
        "min_new_tokens": 4,
    },
}
MODES = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 3},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0},
    "samples": {"do_sample": True, "top_k": 4, "temperature": 2.0, "seed": 1},
}


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("mode", MODES)
def test_few_tokens_or_all(mode, penalties, monkeypatch):
    model = make(vocab=V)
    src, lengths = sources(vocab=V)
    options = {"max_new_tokens": 15, "return_dict_in_generate": True}
    options |= {**MODES[mode], **PENALTIES[penalties]}
    found = model.generate(src, lengths, **options)

    class All(Proposals):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            assert not self.needs_all
            self.needs_all = True

    monkeypatch.setattr("seq2seq_ext.generation.search.Proposals", All)
    want = model.generate(src, lengths, **options)
    assert torch.equal(found.sequences, want.sequences)
    if _backend.available("cpu"):
        assert torch.equal(found.token_log_probs, want.token_log_probs)
        assert torch.equal(found.sequences_scores, want.sequences_scores)
