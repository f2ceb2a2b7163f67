# SPDX-License-Identifier: MIT
"""The READMEs' figures and pictures come from the stored rows."""

import os
import re

import pytest

from benchmarks import common, plot, stored, table

FILES = {"ceilings", "sequence_cpu", "train_cpu", "step_cpu", "decode", "growth_cpu"}
TIMES = FILES - {"ceilings", "growth_cpu"}


@pytest.fixture(autouse=True)
def stored_rows(monkeypatch):
    """Those beside the benchmarks, whatever folder is set."""
    monkeypatch.delenv("SEQ2SEQ_EXT_RESULTS", raising=False)


@pytest.mark.parametrize("name", table.TABLES)
def test_readme_shows_the_stored_rows(name):
    text = (table.ROOT / name).read_text(encoding="utf-8")
    for mark in table.TABLES[name]:
        assert table.BEGIN.format(mark) in text
    assert text == table.rewritten(text, table.TABLES[name]), "run python -m benchmarks.table"


def test_a_readme_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="no place for the table 'x'"):
        table.rewritten("text", {"x": str})


def test_quick_rows_do_not_replace_the_stored_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {})
    common.keep_apart()
    folder = common.results_folder()
    assert folder.parts[-3:] == ("build", "benchmarks", "quick")
    assert folder.resolve() != common.RESULTS.resolve()
    os.environ["SEQ2SEQ_EXT_RESULTS"] = str(tmp_path)
    common.keep_apart()
    assert common.results_folder() == tmp_path


@pytest.mark.parametrize("name", plot.DRAWN)
def test_pictures_show_the_stored_rows(name, tmp_path):
    picture = plot.PICTURES / f"{name}.svg"
    assert plot.digest_of(picture) == plot.digest(name), "run python -m benchmarks.plot"
    text = picture.read_text(encoding="utf-8")
    assert picture.stat().st_size < 100_000
    mpl = pytest.importorskip("matplotlib")
    if f"Matplotlib v{mpl.__version__}," not in text:
        pytest.skip("another matplotlib draws other bytes")
    assert plot.draw(name, tmp_path).read_text(encoding="utf-8") == text


def test_readmes_show_the_pictures():
    shown = {
        name: set(re.findall(r"!\[[^]]*\]\((?:benchmarks/)?pictures/(\w+)\.svg\)", text))
        for name in table.TABLES
        if (text := (table.ROOT / name).read_text(encoding="utf-8"))
    }
    assert shown == {name: set(plot.DRAWN) for name in table.TABLES}
    assert {path.stem for path in plot.PICTURES.glob("*.svg")} == set(plot.DRAWN)


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_row_says_where_it_comes_from(name):
    found = stored.rows(name)
    assert found
    for row in found:
        assert all(row[k] for k in ("device", "isa", "threads", "torch", "commit", "date"))
        if name in TIMES:
            assert float(row["speedup"]) > 0
        if name != "ceilings":
            assert float(row["p20_ms"]) <= float(row["p80_ms"])
