# SPDX-License-Identifier: MIT
"""The benchmark of decoding at small sizes: that it runs, compares, and leaves whole rows. No time
is looked at."""

import csv
import functools
import math

import pytest
import torch

from benchmarks import bench_decode, ceilings, decode_peers, table, table_rows, timing
from benchmarks.bench_decode import Case

CASES = (
    Case(300, 32, 1, 8, marks={"float32": 1e-9}),
    Case(97, 24, 3, 6, marks={"int8": 10**9}),
    Case(300, 32, 3, 6, beams=4),
)
CEILINGS = ceilings.Ceilings(
    2,
    (ceilings.Level("DRAM", math.inf, 1e9, 2e9),),
    {"float32": 1e9, "bfloat16": 2e9},
    dict.fromkeys(ceilings.DTYPES, 0.0),
)
PEERS = {
    (1, 1): {"torch", "torch, addmv"},
    (3, 1): {"torch"},
    (3, 4): {"torch", "torch, flat"},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv("SEQ2SEQ_EXT_RESULTS", str(tmp_path))
    monkeypatch.setattr(bench_decode, "CASES", CASES)
    monkeypatch.setattr(ceilings, "measure", lambda seconds: CEILINGS)
    once = functools.partial(timing.interleaved, pause=0, lead=0, block=0)
    monkeypatch.setattr(bench_decode, "interleaved", once)
    yield tmp_path
    torch.set_num_threads(threads)


def test_rows(results, monkeypatch, capsys):
    # With --check the marks decide: of these one is missed, whatever the machine.
    monkeypatch.setattr(bench_decode, "SHARE", 0.0)
    assert bench_decode.main(["--quick"]) == 0
    assert bench_decode.main(["--quick", "--check"]) == 1
    assert "V=97 H=24 B=3 beams=1 dtype=int8" in capsys.readouterr().err
    with (results / "decode.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for (B, beams), peers in PEERS.items():
        case = [r for r in rows if (r["B"], r["beams"]) == (str(B), str(beams))]
        found = [(r["dtype"], r["contender"]) for r in case]
        expected = {(d, name) for d in ("float32", "bfloat16") for name in peers}
        expected |= {(d, bench_decode.OURS) for d in ("float32", "bfloat16", "int8")}
        assert len(found) == len(expected)
        assert set(found) == expected
        assert max(float(r["speedup"]) for r in case if r["dtype"] == "float32") >= 1
        for r in case:
            streams = B == 1 and r["contender"] == bench_decode.OURS
            names = ["p20_ms", "median_ms", "p80_ms", "tokens_per_s", "speedup_same_dtype"]
            names += ["flops", "bytes", "gflops", "roofline_ms", "roofline"]
            names += ["weight_mb", "gb_per_s", "read_gb_per_s", "share"] if streams else []
            numbers = [float(r[name]) for name in names]
            assert all(math.isfinite(n) and n > 0 for n in numbers)
            assert numbers[0] <= numbers[1] <= numbers[2]
            assert bool(r["share"]) == streams
            assert all(r[k] for k in ("device", "isa", "threads", "torch", "date"))


def test_weights_counted_are_those_of_a_step():
    V, H = 300, 32
    found = bench_decode.Contenders(CASES[0], bench_decode.Setting(quick=True, compile=False)).bytes
    layers = 4 * H * (2 * H + H) + 2 * 4 * H + 2 * H * H
    assert found["float32"] == 4 * (layers + V * H + V)
    assert found["bfloat16"] * 2 == found["float32"]
    words = V + -V % 96  # as the int8 copy has them
    assert found["int8"] == 2 * layers + words * H + 5 * 4 * words


def test_roofline_of_a_call():
    """Two words a source, of products alone; the output layer's are in int8."""
    case = Case(V=100, H=8, B=3, tokens=2)
    free = ceilings.Level("any", math.inf, 1e30, 1e30)
    rates = {"float32": 1.0, "bfloat16": 2.0, "int8": 4.0}
    machine = ceilings.Ceilings(1, (free,), rates, rates)
    call = bench_decode.parts(case, 2, 1, "int8")
    found = sum(machine.floor(part, dtype) for part, dtype in call)
    encoder = 30 * 3 * 2 * 4 * 8 * 16 / 2
    layers = 3 * 2 * (4 * 8 * 24 + 2 * 64 + 2 * 30 * 8) / 2
    assert found == pytest.approx(encoder + 2 * (layers + 3 * 2 * 100 * 8 / 4))


@pytest.mark.parametrize(
    ("case", "function"), [(CASES[1], "pick"), (CASES[2], "extend"), (CASES[2], "extend_flat")]
)
def test_contenders_that_disagree_are_refused(results, monkeypatch, case, function):
    right = getattr(decode_peers.TorchModel, function)

    def wrong(self, *args):  # one row of the last step's tokens is another word
        tokens, *rest = right(self, *args)
        return torch.cat([tokens[:-1], (tokens[-1:] + 1) % case.V]), *rest

    monkeypatch.setattr(decode_peers.TorchModel, function, wrong)
    with pytest.raises(SystemExit, match="disagrees"):
        bench_decode.measure(case, bench_decode.Setting(quick=True, compile=False), CEILINGS)


def test_what_does_not_compile_is_left_out(capsys):
    def broken(x):
        raise RuntimeError("cannot be compiled")

    x = torch.zeros(2)
    # Graphs are traced, no compiler is needed.
    made = decode_peers.compiled({"torch": broken}, (x,))
    assert made == {}
    assert "no torch.compile, frozen: cannot be compiled" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_steps_decode_the_same(results):
    case, setting = CASES[1], bench_decode.Setting(quick=True, compile=True)
    contenders = bench_decode.Contenders(case, setting)
    if "float32 torch.compile" not in contenders.find:
        pytest.skip("torch.compile does not work here")
    bench_decode.must_agree(contenders)
    torch._dynamo.reset()


def test_table(results):
    assert table.decode_table() == "No rows are stored yet."
    bench_decode.main(["--quick"])
    made = table.decode_table()
    for case in CASES:
        assert f"\n| {case.V} | {case.H} | {case.B} | {case.beams} | " in made
    assert made.count("x (1000000000x, the roofline binds); ") == 1
    assert made.split("mark 70 %")[1].count("% |") == 3


def beams_row(dtype, speedup, roofline, **more):
    found = {"V": "32000", "H": "512", "B": "16", "beams": "5", "dtype": dtype}
    found |= {"contender": bench_decode.OURS, "tokens_per_s": str(100 * speedup), "speedup": "1"}
    found |= {"speedup_nn": str(speedup), "mark": "5", "share": ""}
    return found | {"roofline": str(roofline)} | more


def test_a_missed_mark_that_the_roofline_forbids_says_so(results):
    # At 90 % of the roofline the first would be at 2.25x, the second at 6x.
    first, second = bench_decode.missed([beams_row("float32", 2, 0.8), beams_row("int8", 4, 0.6)])
    assert "2.00x, mark 5x, the roofline binds (at 90% of the roofline 2.25x)" in first
    assert "4.00x, mark 5x (at 90% of the roofline 6.00x)" in second
    assert bench_decode.missed([beams_row("int8", 5, 0.9)]) == []


def test_table_of_marks_and_roofline(results, monkeypatch):
    where = {"device": "d", "isa": "i", "threads": "2", "torch": "t", "commit": "c", "date": "d"}
    rows = [
        beams_row("float32", 1, 0.4, contender="torch"),
        beams_row("bfloat16", 1, 0.2, contender="torch"),
        beams_row("float32", 2, 0.8),
        beams_row("bfloat16", 4, 0.6),
        beams_row("int8", 5, 0.75),
    ]
    monkeypatch.setattr(table_rows, "rows", lambda name: [row | where for row in rows])
    made = table.decode_table()
    assert "200: 2.00x (5x, the roofline binds); 80%" in made
    assert "400: 4.00x (5x); 60% | 500: 5.00x (5x); 75% |" in made
    for row in rows:  # as they were stored before
        del row["roofline"]
    made = table.decode_table()
    assert "200: 2.00x (5x) | 400: 4.00x (5x) | 500: 5.00x (5x) |" in made
    assert "roofline" not in made
