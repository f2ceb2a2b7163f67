# SPDX-License-Identifier: MIT
"""The op `decode` by itself: what it returns, and what it refuses."""

import pytest
import torch


def op_arguments(**changes):
    """By name, of a model with attention."""
    torch.manual_seed(1)
    B, S, E, H, C, V = 2, 3, 4, 5, 6, 11
    arguments = {
        "cell": "gru",
        "context": "attention",
        "input_feeding": False,
        "embedding": torch.randn(V, E),
        "layers": [torch.randn(3 * H, E), torch.randn(3 * H, H)],
        "attention": [torch.randn(H, C), torch.randn(H, H)],
        "additive": False,
        "scale": 1.0,
        "output_weight": torch.randn(V, H),
        "output_bias": torch.randn(V),
        "tokens": None,
        "screen": None,
        "screen_numbers": None,
        "panels": [],
        "output_panels": None,
        "hidden": [torch.randn(B, H)],
        "cells": [],
        "keys": torch.randn(B, S, H),
        "values": torch.randn(B, S, C),
        "source_context": None,
        "lengths": torch.tensor([3, 2]),
        "mode": "greedy",
        "counts": [1, 1, 4, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0],
        "numbers": [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        "eos": [2],
        "banned": [],
        "phrases": [],
        "allowed": None,
        "prefix": None,
        "row_ids": None,
        "given": None,
        "given_lengths": None,
        "on_step": 0,
        "shortlist": None,
        "shortlist_starts": None,
        "go_on": 0,
        "more": [],
        "more_layout": [],
        "more_scales": [],
        "mean_of_logs": False,
    }
    assert set(changes) <= set(arguments)
    return {**arguments, **changes}


def values(**changes):
    return list(op_arguments(**changes).values())


def lists(ids, starts):
    return {"shortlist": torch.tensor(ids), "shortlist_starts": torch.tensor(starts)}


def another(V=11, B=2, **changes):
    """A model of an ensemble: an RNN that gets its source at every step."""
    E, H, C = 2, 3, 4
    tensors = [torch.randn(11, E), torch.randn(H, E + C), torch.randn(H, H), torch.randn(V, H)]
    tensors += [torch.randn(B, H), torch.randn(B, C)]
    made = {
        "more": tensors,
        "more_layout": [2, 1, 0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0],
        "more_scales": [1.0],
    }
    return {**made, **changes}


def test_the_op_runs_several_models():
    found = torch.ops.seq2seq_ext.decode(*values(**another()))
    alone = torch.ops.seq2seq_ext.decode(*values())
    assert not torch.equal(found[2][:, 0], alone[2][:, 0])


def test_the_op_runs():
    found = torch.ops.seq2seq_ext.decode(*values())
    tokens, lengths, log_probs, _, weights, hidden, contexts, undefined, scores = found
    assert tokens.shape == log_probs.shape == (2, int(lengths.max()))
    assert weights.numel() == hidden.numel() == contexts.numel() == scores.numel() == 0
    assert undefined.tolist() == [-1, -1]


def packed():
    """The panels of those arguments' weights."""
    given, pack = op_arguments(), torch.ops.seq2seq_ext.pack_panels
    recurrent = [pack(w, 3) for w in given["layers"]] + [pack(w, 1) for w in given["attention"]]
    return {"panels": recurrent, "output_panels": pack(given["output_weight"], 0)}


def test_panels_of_the_output_layer_may_be_left_to_the_op():
    given = packed()
    whole = torch.ops.seq2seq_ext.decode(*values(**given))
    given["output_panels"] = None
    for got, want in zip(torch.ops.seq2seq_ext.decode(*values(**given)), whole, strict=True):
        assert torch.equal(got, want)
    plain = torch.ops.seq2seq_ext.decode(*values())
    assert torch.equal(plain[0], whole[0])
    torch.testing.assert_close(plain[2], whole[2])


@pytest.mark.parametrize("make", [lambda w: w[:-1], lambda w: w.double(), lambda w: w[None]])
def test_panels_that_do_not_fit(make):
    given = packed()
    for at in range(4):
        panels = list(given["panels"])
        panels[at] = make(panels[at])
        with pytest.raises(ValueError, match=rf"panels\[{at}\] \(.h\): expected"):
            torch.ops.seq2seq_ext.decode(*values(panels=panels))
    given["output_panels"] = make(given["output_panels"])
    with pytest.raises(ValueError, match="output_panels: expected"):
        torch.ops.seq2seq_ext.decode(*values(**given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "qrnn"}, "cell: expected one of 'lstm'"),
        ({"context": "all"}, "context: expected one of"),
        ({"mode": "best"}, "mode: expected one of"),
        ({"context": "initial_state", "input_feeding": True}, "input_feeding: expected False"),
        ({"embedding": torch.randn(11, 4).int()}, "embedding: expected dtype"),
        ({"embedding": torch.randn(5, 4)}, "output_weight: expected at most 5 rows"),
        ({"layers": [torch.randn(15, 4)]}, "layers: expected w_ih, w_hh"),
        ({"layers": [torch.randn(15, 3), torch.randn(15, 5)]}, r"w_ih\): expected 4 columns"),
        ({"layers": [torch.randn(15, 4), torch.randn(15, 4)]}, r"layers\[1\] \(w_hh\): expected"),
        ({"attention": [torch.randn(5, 6)]}, "attention: expected combine_ih"),
        ({"additive": True}, "attention: expected"),
        ({"output_weight": torch.randn(11, 5).double()}, "output_weight: expected embedding's"),
        ({"output_bias": torch.randn(10)}, "output_bias: expected shape"),
        ({"tokens": torch.arange(11).flip(0)}, "tokens: expected ascending"),
        ({"hidden": []}, "hidden: expected 1"),
        ({"cells": [torch.randn(2, 5)]}, "cells: expected 0"),
        ({"keys": None}, "keys: expected"),
        ({"keys": torch.randn(2, 0, 5)}, "keys: expected S >= 1"),
        ({"values": torch.randn(2, 3, 5)}, "values: expected shape"),
        ({"lengths": torch.tensor([3, 4])}, r"lengths\[1\]: expected 0 to 3"),
        ({"counts": [1]}, "counts: expected 13"),
        ({"counts": [1, 2, 4, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]}, "counts: expected numbers in"),
        ({"counts": [1, 1, 4, 0, 11, 0, 0, 0, 0, 1, 0, 0, 0]}, r"start token\): expected ids"),
        ({"numbers": [0.0] * 7}, "numbers: expected a positive"),
        ({"phrases": [3, 1, 2]}, "phrases: expected"),
        ({"allowed": torch.ones(3, 11).bool()}, "allowed: expected shape"),
        ({"prefix": torch.tensor([[1], [11]])}, "prefix: expected ids"),
        ({"row_ids": torch.arange(3)}, "row_ids: expected shape"),
        ({"mode": "given"}, "given: expected"),
        ({"screen": torch.zeros(6, 2, 16, 4).byte()}, "screen_numbers: expected"),
        (another(more_layout=[2]), "more_layout: expected 13 a model"),
        (another(more_layout=[4, *[0] * 12]), "more_layout: expected a cell from 0 to 3"),
        (another(more_layout=[2, 1, 0, 0, 9, *[0] * 8]), "more: expected as many as more_layout"),
        (another(more_layout=[2, 1, 0, 0, -1, *[0] * 8]), "more: expected as many as more_layout"),
        (another(more_layout=[2, 1, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0]), "hidden: expected 1"),
        (another(V=10), "more: expected models with the first one's words"),
        (another(B=3), "more: expected models with the first one's words, tokens and rows"),
        (another(more=[*another()["more"], torch.zeros(1)]), "more: expected 6, got 7 tensors"),
        (
            {**another(), "counts": [1, 1, 4, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0]},
            "more: expected none on a GPU, and none where states are kept",
        ),
        (
            {**another(), "counts": [1, 1, 4, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0]},
            "more: expected models with attention over as many positions",
        ),
        ({"shortlist": torch.arange(4)}, "shortlist_starts: expected a tensor"),
        (lists([1, 2, 3, 4], [0, 2]), r"shortlist_starts: expected shape \(3"),
        (lists([1, 2, 3, 4], [0, 2, 5]), "shortlist_starts: expected ascending numbers"),
        (lists([1, 2, 3, 4], [0, 0, 4]), "shortlist_starts: expected ascending numbers"),
        (lists([1, 2, 3, 4], [1, 2, 4]), "shortlist_starts: expected ascending numbers"),
        (lists([2, 1, 3, 4], [0, 2, 4]), "shortlist: expected ascending ids"),
        (lists([1, 11, 3, 4], [0, 2, 4]), "shortlist: expected ascending ids below 11"),
        ({"tokens": torch.arange(11), **lists([1, 2], [0, 1, 2])}, "shortlist: expected None"),
        ({"panels": [torch.zeros(3)]}, "panels: expected 0 or 4, got 1 tensors"),
        ({"output_panels": torch.zeros(3)}, "panels: expected 0 or 4, got 0 tensors"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_the_op_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.seq2seq_ext.decode(*values(**changes))
