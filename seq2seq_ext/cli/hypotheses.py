# SPDX-License-Identifier: MIT
"""Hypotheses as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from seq2seq_ext.cli.console import CommandError
from seq2seq_ext.cli.options import in_options
from seq2seq_ext.training.translator import Hypothesis, ModelError, Translator


class Layout:
    """How hypotheses are printed: one a line, numbers before the text, tabs between."""

    def __init__(self, *, scores: bool, count: int) -> None:
        self.scores, self.count = scores, count

    def lines(self, number: int, hypotheses: Sequence[Hypothesis]) -> list[str]:
        """number: of the sentence, from 1; printed where it has several hypotheses."""
        out = []
        for hypothesis in hypotheses or self._nothing():
            columns = [str(number)] if self.count > 1 else []
            if self.scores:
                columns += [f"{hypothesis.score:.4f}", f"{hypothesis.normalized:.4f}"]
            out.append("\t".join([*columns, hypothesis.text]))
        return out

    def _nothing(self) -> list[Hypothesis]:
        """Of a line without tokens: as many as of any other line, no tokens, probability 1."""
        return [Hypothesis("", [], 0.0, 0.0, None)] * self.count


def decode(
    translator: Translator, texts: Sequence[str], **options: Any
) -> Iterator[dict[int, list[Hypothesis]]]:
    """`Translator.decode`. Raises CommandError with errors in the command line's words."""
    try:
        yield from translator.decode(texts, **options)
    except ModelError as error:
        raise CommandError(in_options(str(error))) from None
