# SPDX-License-Identifier: MIT
"""The stored rows, as tables and pictures read them."""

from __future__ import annotations

import csv
import statistics

from .common import OURS, results_folder

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """Those of results/<name>.csv; none where there is no such file."""
    path = results_folder() / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ours(found: list[Row]) -> list[Row]:
    return [row for row in found if row["contender"] == OURS]


def cases(found: list[Row], *columns: str) -> dict[tuple[str, ...], dict[str, Row]]:
    """The rows of each case by contender; a case is what has the same values in `columns`."""
    by_case: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in found:
        by_case.setdefault(tuple(row[c] for c in columns), {})[row["contender"]] = row
    return by_case


def conditions(row: Row) -> str:
    return (
        f"{row['device']}, {row['isa']}, {row['threads']} threads, torch {row['torch']}, "
        f"{row['date']}, commit {row['commit']}"
    )


def mean(values: list[float]) -> float:
    return statistics.geometric_mean(values)
