# SPDX-License-Identifier: MIT
"""`evaluate`: scores on pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from seq2seq_ext.cli.console import CommandError, log, print_scores, set_threads
from seq2seq_ext.cli.options import DecodingDtype, prepare
from seq2seq_ext.data.corpus import Pair, filter_by_words, group_references, read_pairs
from seq2seq_ext.training.files import write_text
from seq2seq_ext.training.metrics import Scores, score
from seq2seq_ext.training.translator import Translator


def load_pairs(data: Path | None, source: Path | None, target: Path | None) -> list[Pair]:
    """Pairs of a TSV file or of two parallel files. Raises CommandError where neither is given."""
    if data is not None:
        if source is not None or target is not None:
            raise CommandError("give either a TSV file or --source and --target, not both")
        return read_pairs(data)
    if source is None or target is None:
        raise CommandError("give a TSV file, or --source and --target")
    return read_pairs(source, target)


def evaluate_pairs(
    translator: Translator, pairs: Sequence[Pair], *, any_reference: bool, batch_size: int = 64
) -> tuple[Scores, list[tuple[str, str, list[str]]]]:
    """Scores, and (source, hypothesis, references) of each sentence."""
    if any_reference:
        sources, references = group_references(pairs)
    else:
        sources, references = [s for s, _ in pairs], [[t] for _, t in pairs]
    found = translator.translate(sources, batch_size=batch_size)
    # Reference and hypothesis are compared as text with the same spaces: no-break ones are plain.
    plain = [[" ".join(reference.split()) for reference in right] for right in references]
    scores = score(found, plain)
    return scores, list(zip(sources, found, references, strict=True))


def write_hypotheses(path: Path, rows: Sequence[tuple[str, str, list[str]]]) -> None:
    lines = ["\t".join([source, found, *right]) for source, found, right in rows]
    try:
        write_text(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from None


def run(
    model: Path,
    data: Path | None,
    source: Path | None,
    target: Path | None,
    *,
    any_reference: bool,
    max_words: int | None,
    hypotheses: Path | None,
    as_json: bool,
    dtype: DecodingDtype | None,
    batch_size: int,
    threads: int | None,
) -> None:
    set_threads(threads)
    pairs = load_pairs(data, source, target)
    if max_words is not None:
        pairs = filter_by_words(pairs, max_words)
        if not pairs:
            raise CommandError(f"no pairs of at most {max_words} words")
    translator = Translator.load(model)
    prepare(translator, dtype)
    started = time.perf_counter()
    scores, rows = evaluate_pairs(
        translator, pairs, any_reference=any_reference, batch_size=batch_size
    )
    seconds = time.perf_counter() - started
    if hypotheses is not None:
        write_hypotheses(hypotheses, rows)
    if as_json:
        print(json.dumps(scores.to_dict(), indent=2))
        return
    print_scores(scores, f"{model} on {data or source}")
    log.print(f"{len(rows) / seconds:,.0f} sentences/s")
