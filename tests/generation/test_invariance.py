# SPDX-License-Identifier: MIT
"""A sentence's results are the same bits alone and in any batch, whatever decodes."""

import pytest
import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation import Ensemble

from .models import ALL_KINDS, make, sources

pytestmark = pytest.mark.skipif(
    not _backend.available("cpu"), reason="the reference rounds by its BLAS"
)

BATCH, SIZE, V = 19, 9, 23
GROUPS = [[0], [18], [4, 4, 18, 1], list(range(7, 19)), torch.randperm(BATCH).tolist()]

BEAMS = {"num_beams": 4, "num_return_sequences": 3}
SAMPLES = {"do_sample": True, "num_return_sequences": 2, "seed": 12}
PENALTIES = {
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[9], [10, 11], [12, 13, 14]],
    "min_new_tokens": 2,
}
WAYS = {
    "greedy": {},
    "greedy with penalties": PENALTIES,
    "beams": BEAMS,
    "beams with penalties": {**BEAMS, **PENALTIES, "length_penalty": 0.6},
    "groups": {**BEAMS, "num_beam_groups": 2, "diversity_penalty": 0.8},
    "samples": SAMPLES,
    "samples of all": {**SAMPLES, "top_k": 0},
    "samples with everything": {
        **SAMPLES,
        **PENALTIES,
        "top_k": 15,
        "top_p": 0.9,
        "min_p": 0.01,
        "temperature": 1.3,
    },
}


def arguments_of(way):
    """What a batch is decoded with: by name, a tensor or list of BATCH rows."""
    if "penalties" not in way and "everything" not in way:
        return {}
    generator = torch.Generator().manual_seed(5)
    allowed = torch.rand(BATCH, V, generator=generator) < 0.8
    allowed[:, :9] = True
    prefix = torch.full((BATCH, 2), -1)
    prefix[::3, 0], prefix[::6, 1] = 17, 12
    return {"allowed_tokens": allowed, "prefix_tokens": prefix}


def check(decode, src, lengths, count, arguments):
    """decode(src, lengths, **arguments) of groups of rows against that of all."""
    whole = decode(src, lengths, **arguments)
    for rows in GROUPS:
        size = int(lengths[rows].max())
        part = decode(src[rows, :size], lengths[rows], **{k: v[rows] for k, v in arguments.items()})
        at = (torch.tensor(rows)[:, None] * count + torch.arange(count)).flatten()
        steps = part.sequences.size(1)
        assert torch.equal(part.lengths, whole.lengths[at])
        for name in ("sequences", "token_log_probs"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[at, :steps]), name
        for name in ("sequences_scores", "normalized_scores", "beam_scores"):
            if getattr(part, name) is not None:
                assert torch.equal(getattr(part, name), getattr(whole, name)[at]), name
    return set(whole.lengths.tolist())


@pytest.mark.parametrize("weights", ["torch.float32", "torch.bfloat16", "prepared"])
@pytest.mark.parametrize("way", WAYS)
def test_alone_and_in_any_batch_the_same_bits(way, weights):
    cells = ("lstm", "gru", "rnn")
    prepared = (torch.int8, torch.float32, torch.bfloat16, torch.float64)
    seen = set()
    for number, kind in enumerate(ALL_KINDS):
        dtype = torch.bfloat16 if weights == "torch.bfloat16" else torch.float32
        model = make(dtype, cell=cells[number % 3], num_layers=1 + number % 2, **kind)
        if weights == "prepared":
            model.prepare_for_decoding(prepared[number % 4])
        options = {"max_new_tokens": 12, "return_dict_in_generate": True, **WAYS[way]}
        if "num_beams" in options and "attention" in kind:
            options["coverage_penalty"] = 0.3
        src, lengths = sources(BATCH, SIZE)
        arguments = {"row_ids": torch.randint(0, 2**32, (BATCH,)), **arguments_of(way)}
        seen |= check(
            lambda src, lengths, model=model, options=options, **more: model.generate(
                src, lengths, **options, **more
            ),
            src,
            lengths,
            options.get("num_return_sequences", 1),
            arguments,
        )
    assert len(seen) > 1  # rows end at different steps


@pytest.mark.parametrize("combine", ["probabilities", "log_probabilities"])
def test_ensembles(combine):
    models = [make(cell="gru"), make(cell="lstm", attention="additive", input_feeding=True)]
    models.append(make(torch.bfloat16, num_layers=2))
    models[1].prepare_for_decoding(torch.float32)
    ensemble = Ensemble(models, combine=combine)
    src, lengths = sources(BATCH, SIZE)
    groups = WAYS["groups"]
    for more in ({}, {**BEAMS, "coverage_penalty": 0.3}, groups, SAMPLES, PENALTIES):
        options = {"max_new_tokens": 9, "return_dict_in_generate": True, **more}
        count = options.get("num_return_sequences", 1)
        row_ids = {"row_ids": torch.arange(BATCH)}
        check(
            lambda *a, options=options, **k: ensemble.generate(*a, **options, **k),
            src,
            lengths,
            count,
            row_ids,
        )


@pytest.mark.parametrize("by_row", [False, True])
def test_shortlists(by_row):
    model = make()
    src, lengths = sources(BATCH, SIZE)
    common = torch.tensor([9, 10, 11, 12, 15, 16, 22])
    rows = torch.stack([torch.randperm(V)[:8] for _ in range(BATCH)])
    prefix = torch.full((BATCH, 1), -1)
    prefix[5], prefix[8] = 20, 9  # one of them outside the list of all

    def decode(*arguments, **more):
        if not by_row:
            more["shortlist"] = common
        options = {"max_new_tokens": 9, "return_dict_in_generate": True, **BEAMS}
        return model.generate(*arguments, **options, **more)

    own = {"shortlist": rows} if by_row else {}
    check(decode, src, lengths, 3, {"prefix_tokens": prefix, **own})


@pytest.mark.parametrize("what", [None, torch.bfloat16, torch.int8, "ensemble"], ids=str)
def test_scores(what):
    model = make()
    if what == "ensemble":
        model = Ensemble([model, make(torch.bfloat16, cell="gru")])
    else:
        model.prepare_for_decoding(what)
    src, lengths = sources(BATCH, SIZE)
    out = model.generate(src, lengths, max_new_tokens=12, return_dict_in_generate=True)
    whole = model.score(src, out.sequences, lengths)
    for rows in GROUPS:
        steps = int(out.lengths[rows].max())
        size = int(lengths[rows].max())
        part = model.score(src[rows, :size], out.sequences[rows, :steps], lengths[rows])
        assert torch.equal(part.token_log_probs, whole.token_log_probs[rows, :steps])
        assert torch.equal(part.sequences_scores, whole.sequences_scores[rows])
