# SPDX-License-Identifier: MIT
"""What the benchmarks make of their measurements: marks, roofline, exponents."""

import math
import time

import pytest
import torch

from benchmarks import bench_growth, marks, timing
from benchmarks.ceilings import Ceilings, Level, Work, sequence_work, step_work
from benchmarks.common import OURS, must_agree
from benchmarks.machine import cache_sizes, processor_of
from benchmarks.marks import Mark
from benchmarks.memory import peak_mb

CEILINGS = Ceilings(
    threads=2,
    levels=(Level("L2", 1000, 400, 300), Level("DRAM", math.inf, 50, 100)),
    product={"float32": 80, "bfloat16": 300},
    loop={"float32": 100, "bfloat16": 0},
)


def test_roofline():
    assert CEILINGS.peak("float32") == 100
    assert CEILINGS.peak("bfloat16") == 300
    assert CEILINGS.bandwidth(1000) == 400
    assert CEILINGS.bandwidth(1001) == 100
    assert CEILINGS.floor(Work(1000, ((40, 40),)), "float32") == 10  # products bind
    assert CEILINGS.floor(Work(10, ((800, 800), (400, 4000))), "float32") == 2 + 4  # memory binds
    assert CEILINGS.floor(step_work(0, 2000), "float32") == 20


def test_work_of_a_layer():
    T, B, I, H, G = 5, 3, 7, 4, 3  # noqa: E741
    forward = sequence_work(G, T, B, I, H, 2, training=False)
    products = 2 * T * B * G * H * (I + H)
    assert forward.flops == products
    (moved, lies), (once, _) = forward.streams
    assert lies == G * H * H * 2
    assert moved == T * lies
    assert once == 2 * (G * H * (I + H) + T * B * (I + H))
    step = sequence_work(G, T, B, I, H, 2, training=True, directions=2, filled=0.5)
    assert step.flops == 3 * 2 * products / 2
    assert step.streams[0] == (2 * T * 2 * lies, 2 * lies)


def row(time, *, nn=1.0, best=1.0, floor=0.1, dtype="float32", **more):
    """Ours takes `time`, torch.nn `nn`, the best peer `best`, the roofline `floor`."""
    times = {"median_ms": time, "speedup": nn / time, "speedup_best": best / time}
    size = {"set": "sequence", "cell": "LSTM", "T": 50, "B": 1, "H": 64}
    return size | times | {"contender": OURS, "roofline_ms": floor, "dtype": dtype} | more


def test_a_mark_of_the_mean():
    mark = Mark("", "", "torch.nn", 2.0)
    met = marks.verdict(mark, [row(0.25), row(1.0)])
    assert (met.reached, met.worst, met.met) == (2.0, 1.0, True)
    missed = marks.verdict(mark, [row(0.26), row(1.0)])
    assert not missed.met
    assert not missed.forbidden
    # 90 % of the roofline is 0.45 in one row, 1.1 in the other: 1.42x at most.
    bound = marks.verdict(mark, [row(0.5, floor=0.405), row(1.2, floor=0.99)])
    assert not bound.met
    assert bound.forbidden
    assert bound.at_roofline == pytest.approx(1 / math.sqrt(0.45 * 1.1))
    assert "MISSED, the roofline binds" in marks.say(bound)
    assert marks.verdict(mark, []) is None


def test_a_mark_of_every_row():
    mark = Mark("", "", "best peer", 0.95, worst=True)
    assert marks.verdict(mark, [row(1.05), row(0.2)]).met
    assert not marks.verdict(mark, [row(1.06), row(0.2)]).met
    # Of the rows that miss it, the roofline excuses one: the other is told.
    assert marks.verdict(mark, [row(1.1, floor=1.0), row(0.2)]).forbidden
    assert not marks.verdict(mark, [row(1.1, floor=1.0), row(1.1)]).forbidden


def test_a_mark_over_another_dtype_and_of_some_rows():
    mark = Mark("", "", "best float32 peer", 2.0, where={"dtype": ("bfloat16",)})
    narrow = row(0.5, best=0.6, dtype="bfloat16")
    assert marks.verdict(mark, [row(3.0, best=1.5), narrow]).reached == pytest.approx(3)
    assert marks.verdict(mark, [narrow]) is None
    assert marks.verdict(mark, [row(3.0, best=1.5), row(3.0, best=0.1, H=9), narrow]).met


def test_check_decides_the_exit_status(capsys):
    good, bad = ([row(time, best=2.0, nn=2.0)] for time in (0.5, 1.9))
    assert marks.report("sequence_cpu", good, check=True, quick=True) == 0
    assert marks.report("sequence_cpu", bad, check=False, quick=True) == 0
    assert marks.report("sequence_cpu", bad, check=True, quick=True) == 1
    assert "mark 1.25x: MISSED" in capsys.readouterr().err


def test_a_mark_of_rows_that_are_lacking_is_not_measured(capsys):
    sizes = {"cell": ("LSTM", "GRU"), "B": ("1", "16")}
    mark = Mark("", "", "torch.nn", 2.0, sizes=sizes)
    rows = [row(0.2, cell=cell, B=b) for cell in sizes["cell"] for b in (1, 16)]
    assert marks.verdict(mark, rows).met
    assert marks.verdict(mark, rows[:3]) is None
    assert marks.lacking(mark, rows[:3]) == ["GRU 16"]
    assert marks.verdict(mark, rows[:3], quick=True).met
    assert marks.report("train_cpu", rows, check=True) == 1
    assert "training step float32: NOT MEASURED: LSTM 256 1, " in capsys.readouterr().err
    assert all(mark.sizes for mark in marks.MARKS)


def test_every_mark_of_the_table_is_there():
    found = [(m.file, m.over, m.worst, m.value) for m in marks.MARKS]
    assert len(found) == 11
    assert ("sequence_cpu", "best peer", True, 0.95) in found
    assert ("sequence_cpu", "best float32 peer", False, 1.8) in found
    assert ("train_cpu", "torch.nn", False, 2.0) in found


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_exponents(power):
    sizes = (10, 30, 100, 300, 1000)
    values = [5 * size**power for size in sizes]
    values[:2] = 7, 1  # of the lower part
    assert bench_growth.exponent(sizes, values) == pytest.approx(power)
    assert bench_growth.exponent((1, 100), (1, 2)) is None


def test_what_grows_too_fast_is_told(capsys):
    fine = {"op": "x", "axis": "T", "size": 30, "contender": OURS, "time_exponent": 1.09}
    fine["memory_exponent"] = ""
    other = [fine | {"axis": "H", "time_exponent": 2.0}, fine | {"contender": "torch.nn"}]
    other[1]["time_exponent"] = 1.5
    steep = fine | {"memory_exponent": 1.2}
    assert marks.report("growth_cpu", [fine, *other], check=True, quick=True) == 0
    assert marks.report("growth_cpu", [fine, steep], check=True, quick=True) == 1
    assert "x over T: memory grows as T^1.20" in capsys.readouterr().err
    assert marks.report("growth_cpu", [fine, *other], check=True) == 1
    assert "NOT MEASURED: T = 10, T = 5000, B = 1," in capsys.readouterr().err
    ends = [(axis, size) for axis, sizes in marks.GROWS.items() for size in sizes]
    whole = [fine | {"axis": axis, "size": size} for axis, size in ends]
    assert marks.report("growth_cpu", whole, check=True) == 0
    assert {axis: (str(s[0]), str(s[-1])) for axis, s in bench_growth.SIZES.items()} == marks.GROWS


def test_turns():
    """Calls of the lead are not timed; a long call needs no lead."""
    calls = {"short": 0, "long": 0}

    def call(name, seconds):
        calls[name] += 1
        time.sleep(seconds)

    times = timing.interleaved(
        {"short": lambda: call("short", 0.001), "long": lambda: call("long", 0.05)},
        seconds=0,
        least=3,
        pause=0,
        lead=0.004,
        block=0.01,
    )
    assert len(times["long"]) == 3
    assert calls["long"] == 2 + 3
    assert len(times["short"]) >= 3
    assert calls["short"] >= 2 + len(times["short"]) + 3
    assert all(t >= 0.001 for t in times["short"])


def test_summary_is_in_order():
    found = timing.summary([0.005, 0.001, 0.002, 0.004, 0.003])
    assert found == {"median_ms": 3, "p20_ms": 1, "p80_ms": pytest.approx(5)}


def test_processors_of_one_name_are_told_apart():
    text = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    assert processor_of(text) == "AMD EPYC (family 25 model 17)"
    assert processor_of(text.replace("17", "97")) != processor_of(text)
    assert processor_of("model name\t: Some ARM\n") == "Some ARM"
    assert processor_of("") == ""


def test_caches(tmp_path):
    caches = [
        ("1", "Data", "48K", "0"),
        ("1", "Instruction", "32K", "0"),
        ("3", "Unified", "9M", "0-3"),
    ]
    for index, values in enumerate(caches):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        names = ("level", "type", "size", "shared_cpu_list")
        for name, value in zip(names, values, strict=True):
            (folder / name).write_text(value + "\n")
    assert cache_sizes(tmp_path) == {"L1": (48 << 10, False), "L3": (9 << 20, True)}
    assert set(cache_sizes(tmp_path / "none")) == {"L1", "L2", "L3"}


def test_memory_of_a_call():
    found = peak_mb(lambda: torch.ones(10**7).sum())
    if found is None:
        pytest.skip("this system does not tell")
    assert 38 < found < 60


def test_contenders_that_disagree_stop_the_run():
    one = torch.ones(3, 2)
    must_agree({"a": (one,), "b": (one.numpy() + 1e-6,)}, "a", "float32")
    for other in (one * 1.001, torch.ones(3, 3), one * math.nan):
        with pytest.raises(SystemExit, match="b disagrees with a"):
            must_agree({"a": (one,), "b": (other,)}, "a", "float32")
