# SPDX-License-Identifier: MIT
"""Scores of translations against references.

Every function takes hypotheses and, for each, its references: one or several right answers.

* exact match: share of hypotheses equal to one of their references.
* token accuracy: tokens right at their position, over the longer of hypothesis and reference.
* WER: share of hypotheses that equal none of their references ("word error rate" as pronunciation
  tasks use it: one word, one sequence), 1 - exact match.
* PER: edit distance in tokens to the closest reference, over that reference's tokens, summed over
  the corpus ("phone error rate"; with words as tokens, speech recognition's word error rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Scores:
    """All metrics of one evaluation; rates are in [0, 1], BLEU and chrF in [0, 100]."""

    sentences: int
    bleu: float
    chrf: float
    exact_match: float
    token_accuracy: float
    wer: float
    per: float
    bleu_signature: str
    chrf_signature: str

    def to_dict(self) -> dict[str, float | int | str]:
        return asdict(self)


def _check(hypotheses: Sequence[str], references: References) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(
            f"references: expected one entry for each of {len(hypotheses)} hypotheses, "
            f"got {len(references)}"
        )
    if not hypotheses:
        raise ValueError("hypotheses: expected at least one")
    if not all(references):
        raise ValueError("references: expected at least one for each hypothesis")


def _words(text: str) -> list[str]:
    return text.split()


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def exact_match(hypotheses: Sequence[str], references: References) -> float:
    """Share of hypotheses equal to one of their references, spaces apart."""
    _check(hypotheses, references)
    hits = sum(
        _words(hypothesis) in [_words(reference) for reference in right]
        for hypothesis, right in zip(hypotheses, references, strict=True)
    )
    return hits / len(hypotheses)


def token_accuracy(hypotheses: Sequence[str], references: References) -> float:
    """Tokens (by spaces) right at their position, over the longer side's tokens.

    With several references each hypothesis is held against the one it does best on.
    """
    _check(hypotheses, references)
    right_total, total = 0, 0
    for hypothesis, right in zip(hypotheses, references, strict=True):
        h = _words(hypothesis)
        counts = []
        for reference in right:
            r = _words(reference)
            counts.append((sum(map(str.__eq__, h, r)), max(len(h), len(r))))
        hits, length = max(counts, key=lambda c: (c[0] / max(c[1], 1), c[1]))
        right_total, total = right_total + hits, total + length
    return right_total / max(total, 1)


def token_error_rate(hypotheses: Sequence[str], references: References) -> float:
    """Edits to the closest reference over its tokens, summed over all hypotheses."""
    _check(hypotheses, references)
    edits, total = 0, 0
    for hypothesis, right in zip(hypotheses, references, strict=True):
        h = _words(hypothesis)
        counts = [(edit_distance(h, r), len(r)) for r in map(_words, right)]
        distance, length = min(counts, key=lambda c: (c[0] / max(c[1], 1), -c[1]))
        edits, total = edits + distance, total + length
    return edits / max(total, 1)


def score(hypotheses: Sequence[str], references: References) -> Scores:
    """All metrics; BLEU and chrF are sacrebleu's defaults.

    Raises:
        ValueError: no hypotheses, or not one list of references for each.
    """
    from sacrebleu.metrics import BLEU, CHRF

    _check(hypotheses, references)
    # sacrebleu wants one list per reference number; None where a sentence has fewer.
    most = max(map(len, references))
    streams: Any = [
        [right[i] if i < len(right) else None for right in references] for i in range(most)
    ]
    bleu, chrf = BLEU(), CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), streams)
    chrf_score = chrf.corpus_score(list(hypotheses), streams)
    exact = exact_match(hypotheses, references)
    return Scores(
        sentences=len(hypotheses),
        bleu=bleu_score.score,
        chrf=chrf_score.score,
        exact_match=exact,
        token_accuracy=token_accuracy(hypotheses, references),
        wer=1.0 - exact,
        per=token_error_rate(hypotheses, references),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )
