# SPDX-License-Identifier: MIT
"""The CPU benchmarks at small sizes: that they run, compare, and leave whole rows. No time is
looked at."""

import csv
import functools
import importlib.util
import math
import sys

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import (
    bench_growth,
    bench_sequence,
    bench_step,
    bench_train,
    ceilings,
    common,
    peers,
    plot,
    table,
    timing,
)
from benchmarks.bench_sequence import Case

CEILINGS = ceilings.Ceilings(
    2,
    (ceilings.Level("DRAM", math.inf, 1e9, 2e9),),
    {"float32": 1e9, "bfloat16": 2e9},
    dict.fromkeys(ceilings.DTYPES, 0.0),
)
SIZES = [
    Case("sequence", cell, dtype, 6, 3, 8) for cell in ("LSTM", "GRU") for dtype in common.ROUNDING
]
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
INSTALLED = {name for module, name in ENGINES.items() if importlib.util.find_spec(module)}
if not importlib.util.find_spec("onnx"):
    INSTALLED = set()


@pytest.fixture
def results(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other take long
    monkeypatch.setenv("SEQ2SEQ_EXT_RESULTS", str(tmp_path))
    monkeypatch.setattr(ceilings, "measure", lambda seconds: CEILINGS)
    once = functools.partial(timing.interleaved, pause=0, lead=0, block=0)
    monkeypatch.setattr(
        common, "interleaved", lambda runs, seconds, least: once(runs, seconds=0, least=2)
    )
    monkeypatch.setattr(bench_sequence, "cases", lambda dtypes, quick: SIZES)
    variable = [Case("lengths", c.cell, c.dtype, c.T, c.B, c.H) for c in SIZES]
    monkeypatch.setattr(bench_train, "cases", lambda dtypes, quick: [*SIZES, *variable])
    ops = [bench_step.Case(op, "", 2, 8) for op in ("LSTMCell", "GRUCell", "attention")]
    monkeypatch.setattr(
        bench_step, "cases", lambda quick: [*ops, bench_step.Case("pick", 40, 2, 8)]
    )
    monkeypatch.setattr(bench_train, "SHORTEST", 2)
    small = {"T": (1, 4, 6), "B": (1, 2, 3), "H": (4, 8), "V": (8, 40)}
    monkeypatch.setattr(bench_growth, "QUICK", small)
    series = [s for s in bench_growth.series() if s.op in ("LSTM inference", "vocabulary pick")]
    monkeypatch.setattr(bench_growth, "series", lambda: series)
    yield tmp_path
    torch.set_num_threads(threads)


def stored(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def whole(rows, *columns):
    for row in rows:
        numbers = [float(row[k]) for k in ("p20_ms", "median_ms", "p80_ms", *columns)]
        assert all(math.isfinite(n) and n > 0 for n in numbers), row
        assert numbers[0] <= numbers[1] <= numbers[2]
        assert all(row[k] for k in ("device", "isa", "threads", "torch", "date", "peers", "dtype"))


FIGURES = ("speedup", "speedup_best", "flops", "bytes", "gflops", "roofline_ms", "roofline")


def test_sequences(results):
    assert bench_sequence.main(["--quick"]) == 0
    rows = stored(results, "sequence_cpu")
    whole(rows, *FIGURES)
    for case in SIZES:
        found = [r for r in rows if (r["cell"], r["dtype"]) == (case.cell, case.dtype)]
        expected = {"torch.nn", common.OURS} | INSTALLED
        assert {r["contender"] for r in found} == expected - (
            {"ONNX Runtime"} if case.dtype == "bfloat16" else set()
        )
        for row in found:
            medians = {r["contender"]: float(r["median_ms"]) for r in found}
            of_peers = {name: t for name, t in medians.items() if name != common.OURS}
            assert row["best_peer"] == min(of_peers, key=of_peers.get)
            mine = medians[row["contender"]]
            assert float(row["speedup"]) == pytest.approx(medians["torch.nn"] / mine, rel=0.01)
            assert float(row["speedup_best"]) == pytest.approx(
                min(of_peers.values()) / mine, rel=0.01
            )
            assert float(row["roofline"]) == pytest.approx(
                float(row["roofline_ms"]) / mine, rel=0.01
            )
    assert {r["bench"] for r in stored(results, "ceilings")} == {"sequence"}


def test_training_steps(results):
    assert bench_train.main(["--quick"]) == 0
    rows = stored(results, "train_cpu")
    whole(rows, *FIGURES)
    assert {(r["set"], r["cell"], r["dtype"], r["contender"]) for r in rows} == {
        (kind, case.cell, case.dtype, name)
        for kind in ("sequence", "lengths")
        for case in SIZES
        for name in ("torch.nn", common.OURS)
    }


def test_steps_and_growth_and_what_is_made_of_them(results, capsys):
    assert bench_step.main(["--quick"]) == 0
    whole(stored(results, "step_cpu"), *FIGURES)
    assert bench_growth.main(["--quick"]) == 0
    rows = stored(results, "growth_cpu")
    whole(rows, *FIGURES)
    assert {r["axis"] for r in rows} == set("TBHV")
    assert all(math.isfinite(float(r["time_exponent"])) for r in rows if r["axis"] in "TB")
    assert bench_sequence.main(["--quick"]) == bench_train.main(["--quick"]) == 0
    assert {r["bench"] for r in stored(results, "ceilings")} == {
        *("step", "growth", "sequence", "train")
    }
    # Rows of another folder do not touch the READMEs.
    before = [(table.ROOT / name).read_bytes() for name in table.TABLES]
    capsys.readouterr()
    table.main()
    said = capsys.readouterr().out
    assert "| LSTM | float32 | 6 | 8 | 3 |" in said
    assert "| vocabulary pick | V | 8 | 40 |" in said
    assert before == [(table.ROOT / name).read_bytes() for name in table.TABLES]
    assert plot.main() == 0
    pictures = {path.stem: path for path in (results / "pictures").glob("*.svg")}
    assert set(pictures) == set(plot.DRAWN)
    for name, path in pictures.items():
        assert plot.digest_of(path) == plot.digest(name)
        assert plot.draw(name, results).read_bytes() == path.read_bytes()
    (results / "sequence_cpu.csv").write_bytes(
        (results / "sequence_cpu.csv").read_bytes().replace(b"LSTM", b"GRU", 1)
    )
    assert plot.digest_of(pictures["speedup"]) != plot.digest("speedup")
    assert plot.digest_of(pictures["growth"]) == plot.digest("growth")


@pytest.mark.parametrize("case", SIZES[::2], ids=lambda case: case.cell)
def test_a_wrong_peer_stops_the_run(results, monkeypatch, case):
    right = peers.openvino

    def wrong(module, x):
        return right(module, x + 0.1)

    if "OpenVINO" not in INSTALLED:
        pytest.skip("needs OpenVINO")
    monkeypatch.setattr(peers, "openvino", wrong)
    with pytest.raises(SystemExit, match=r"OpenVINO disagrees with torch\.nn"):
        bench_sequence.measure(case, CEILINGS, seconds=0, compile=False)


def test_a_peer_that_is_missing_is_left_out(monkeypatch, capsys):
    for module in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    peers.note.cache_clear()
    found = peers.sequence_peers(torch.nn.GRU(4, 4), torch.randn(2, 1, 4), compile=False)
    assert set(found) == {"torch.nn"}
    said = capsys.readouterr().err
    assert "without ONNX Runtime: " in said
    assert "without OpenVINO: " in said


@pytest.mark.slow
def test_compiled_peers(results):
    rows = bench_sequence.measure(SIZES[0], CEILINGS, seconds=0)
    found = {str(row["contender"]) for row in rows}
    if "torch.compile" not in found:
        pytest.skip("torch.compile does not work here")
    assert "torch.compile, frozen" in found
    rows = bench_step.measure(bench_step.Case("attention", "", 2, 8), CEILINGS, seconds=0)
    assert {"torch.compile", "torch.compile, frozen"} <= {str(row["contender"]) for row in rows}


@pytest.mark.parametrize("compiler", ["as it is", "none"])
def test_ceilings(monkeypatch, compiler):
    """The shape of what is found; without a compiler, too."""
    if compiler == "none":
        monkeypatch.setattr(ceilings, "_loops", lambda: None)
    monkeypatch.setattr(
        ceilings, "cache_sizes", lambda: {"L1": (1 << 15, False), "L2": (1 << 19, True)}
    )
    monkeypatch.setattr(ceilings, "PRODUCTS", (64,))
    monkeypatch.setattr(ceilings, "LARGE", 1 << 22)
    found = ceilings.measure(0.0002)
    assert [level.name for level in found.levels] == ["L1", "L2", "DRAM"]
    assert found.levels[0].capacity == (1 << 15) * torch.get_num_threads()
    assert found.levels[1].capacity == 1 << 19
    assert all(float(row["rate"]) > 0 for row in found.rows())
    assert all(found.peak(dtype) > 0 for dtype in ceilings.DTYPES)


def test_all_run_though_one_fails(monkeypatch, capsys):
    ran = []

    def run(module, arguments):
        ran.append((module, arguments))
        return module == "bench_train"

    monkeypatch.setattr(everything, "run", run)
    assert everything.main(["--quick"]) == 1
    assert ran == [(bench, ["--quick"]) for bench in everything.BENCHES] + [
        ("plot", []),
        ("table", []),
    ]
    assert "failed: bench_train" in capsys.readouterr().err
