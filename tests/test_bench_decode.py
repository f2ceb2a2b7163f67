# SPDX-License-Identifier: MIT
"""The benchmark of decoding at small sizes: that it runs, compares, and leaves whole rows. No time
is looked at."""

import csv
import functools
import math

import pytest
import torch

from benchmarks import bench_decode, ceilings, decode_peers, table, timing
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
            names += ["roofline_ms", "roofline"]
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
    found = bench_decode.floor(case, 2, 1, "int8", ceilings.Ceilings(1, (free,), rates, rates))
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
    assert made.count("x (1000000000x) |") == 1
    assert made.count("% |") == 3
