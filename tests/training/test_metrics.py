# SPDX-License-Identifier: MIT
"""Metrics against values worked out by hand."""

from __future__ import annotations

import pytest

from seq2seq_ext.training import metrics


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a c", "a b c", 1),
        ("a b c", "a x c", 1),
        ("b a", "a b", 2),
        ("k i t t e n", "s i t t i n g", 3),
    ],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert metrics.edit_distance(a.split(), b.split()) == distance


# Hypothesis, references: three sentences with one, two and three right answers.
HYPOTHESES = ["a b c", "x y", "k l m n"]
REFERENCES = [["a b c"], ["x z w", "q y"], ["k l m", "k l m n", "o"]]


def test_exact_match_and_wer_count_any_reference() -> None:
    assert metrics.exact_match(HYPOTHESES, REFERENCES) == pytest.approx(2 / 3)
    assert metrics.score(HYPOTHESES, REFERENCES).wer == pytest.approx(1 / 3)
    # Only the first reference counts where it is the only one given.
    first = [right[:1] for right in REFERENCES]
    assert metrics.score(HYPOTHESES, first).wer == pytest.approx(2 / 3)


def test_spaces_do_not_count() -> None:
    assert metrics.exact_match(["a  b "], [["a b"]]) == 1


def test_token_accuracy() -> None:
    # "a b c": 3 of 3. "x y": against "x z w" 1 of 3, against "q y" 1 of 2, the better. "k l m n":
    # 4 of 4. Together 8 of 9.
    assert metrics.token_accuracy(HYPOTHESES, REFERENCES) == pytest.approx(8 / 9)
    # A longer hypothesis does not get away with its surplus: 2 of 4.
    assert metrics.token_accuracy(["a b c d"], [["a b"]]) == pytest.approx(0.5)
    # Positions count: nothing is right after a shift.
    assert metrics.token_accuracy(["b c"], [["a b c"]]) == 0


def test_token_error_rate() -> None:
    # "x y": distance 2 to "x z w" (2/3), 1 to "q y" (1/2), the closer. Edits 0 + 1 + 0 over
    # 3 + 2 + 4 reference tokens.
    assert metrics.token_error_rate(HYPOTHESES, REFERENCES) == pytest.approx(1 / 9)
    assert metrics.token_error_rate(["a"], [["a b c d"]]) == pytest.approx(3 / 4)


def test_scores_agree_with_sacrebleu_itself() -> None:
    import sacrebleu

    hypotheses = ["the cat sat on the mat today", "he reads the book of his friend"]
    references = [
        ["the cat sat on the mat", "a cat sat on the mat today"],
        ["he reads a book of his friend"],
    ]
    scores = metrics.score(hypotheses, references)
    streams = [[r[0] for r in references], [references[0][1], None]]
    assert scores.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, streams).score)
    assert scores.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, streams).score)
    assert "tok:13a" in scores.bleu_signature
    assert metrics.score(["a b c d"], [["a b c d"]]).bleu == pytest.approx(100)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], [], "one entry for each of 1"),
        ([], [], "at least one"),
        (["a"], [[]], "at least one for each"),
    ],
)
def test_bad_input(hypotheses: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.score(hypotheses, references)
