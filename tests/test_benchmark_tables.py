# SPDX-License-Identifier: MIT
"""The READMEs' figures come from the stored rows."""

import pytest

from benchmarks import table


@pytest.mark.parametrize("name", table.TABLES)
def test_readme_shows_the_stored_rows(name):
    text = (table.ROOT / name).read_text(encoding="utf-8")
    for mark in table.TABLES[name]:
        assert table.BEGIN.format(mark) in text
    assert text == table.rewritten(text, table.TABLES[name]), "run python -m benchmarks.table"


def test_every_row_says_where_it_comes_from():
    stored = {path.stem for path in table.RESULTS.glob("*.csv")}
    assert stored >= {"sequence_cpu", "step_cpu"}
    for name in sorted(stored & {"sequence_cpu", "step_cpu", "decode"}):
        for row in table.rows(name):
            assert all(row[k] for k in ("device", "isa", "threads", "torch", "commit", "date"))
            assert float(row["speedup"]) > 0
            assert float(row["p20_ms"]) <= float(row["p80_ms"])
