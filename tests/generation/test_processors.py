# SPDX-License-Identifier: MIT
"""Each option's function alone, against plain Python row by row."""

import math
import random

import pytest
import torch

from seq2seq_ext.generation import processors

from . import oracle

V = 6


def histories():
    for size in range(6):
        yield torch.randint(0, V, (40, size))
    yield torch.randint(0, 2, (40, 9))  # everything repeats


def marked(expected):
    return torch.tensor([[v in row for v in range(V)] for row in expected])


def test_seen_tokens():
    for history in histories():
        expected = marked([set(row) for row in history.tolist()])
        assert torch.equal(processors.seen_tokens(history, V), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_repeated_ngrams(n):
    def banned(row):
        out = set()
        for v in range(V):
            after = [*row, v]
            ngrams = [after[i : i + n] for i in range(len(after) - n + 1)]
            if ngrams and ngrams[-1] in ngrams[:-1]:
                out.add(v)
        return out

    some = False
    for history in histories():
        expected = marked([banned(row) for row in history.tolist()])
        some |= bool(expected.any())
        assert torch.equal(processors.repeated_ngrams(history, n, V), expected)
    assert some


def test_completed_phrases():
    phrases = torch.tensor([[0, 1, 0], [1, 1, 5], [1, 1, 2], [0, 0, 0]])

    def banned(row):
        return {p[-1] for p in phrases.tolist() if len(row) >= 2 and row[-2:] == p[:-1]}

    some = False
    for history in histories():
        expected = marked([banned(row) for row in history.tolist()])
        some |= bool(expected.any())
        assert torch.equal(processors.completed_phrases(history, phrases, V), expected)
    assert some


def test_forced_tokens():
    banned = torch.rand(30, V) < 0.5
    forced = torch.randint(-1, V, (30,))
    out = processors.force(banned, forced)
    for row, token in enumerate(forced.tolist()):
        others = [v != token for v in range(V)]
        assert out[row].tolist() == (banned[row].tolist() if token < 0 else others)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty(penalty):
    logits, seen = torch.randn(30, V).double(), torch.rand(30, V) < 0.5
    out = processors.penalize_repetition(logits, seen, penalty)
    for row in range(30):
        for v in range(V):
            z = float(logits[row, v])
            if seen[row, v]:
                z = z / penalty if z > 0 else z * penalty
            assert float(out[row, v]) == z
    if penalty > 1:
        assert (out <= logits).all()


@pytest.mark.parametrize("top_k", [0, 1, 3, 9])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.1, 1.0])
def test_truncation(top_k, top_p, min_p):
    scores = torch.randn(50, 8).double() * 2
    scores[3, 2:], scores[4, :7] = -math.inf, -math.inf
    ordered, tokens = scores.sort(dim=1, descending=True, stable=True)
    out = processors.truncate(ordered, top_k=top_k, top_p=top_p, min_p=min_p)
    for row in range(50):
        expected = oracle.truncated(scores[row].tolist(), 1.0, top_k, top_p, min_p)
        kept = out[row] > -math.inf
        assert set(tokens[row, kept].tolist()) == set(expected)
        assert torch.equal(out[row, kept], ordered[row, kept])


def test_truncation_of_rows_without_a_choice():
    scores = torch.full((2, 4), -math.inf).double()
    out = processors.truncate(scores, top_k=2, top_p=0.5, min_p=0.5)
    assert torch.equal(out, scores)


def test_of_equal_scores_the_lowest_token_is_picked():
    rng = random.Random(0)
    for _ in range(50):
        tokens = [rng.sample(range(100), 5) for _ in range(4)]
        scores = [[rng.choice([0.0, 1.0]) for _ in range(5)] for _ in range(4)]
        index = processors.pick_largest(torch.tensor(scores), torch.tensor(tokens))
        for row in range(4):
            best = max(scores[row])
            expected = min(t for t, s in zip(tokens[row], scores[row], strict=True) if s == best)
            assert tokens[row][int(index[row])] == expected


def test_membership():
    tokens = torch.randint(0, 9, (5, 4))
    for ids in ([], [3], [0, 8, 3]):
        found = processors.is_one_of(tokens, torch.tensor(ids, dtype=torch.int64))
        assert found.tolist() == [[t in ids for t in row] for row in tokens.tolist()]
