# SPDX-License-Identifier: MIT
"""The GPU benchmarks' scripts, on the CPU: that they run, agree and leave whole rows. No time is
looked at."""

import csv
import math
import os
import re
import shutil
import subprocess

import pytest

from benchmarks import bench_gpu_sequence, bench_gpu_step, gpu_endurance, table


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQ2SEQ_EXT_RESULTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("bench", "name", "contenders"),
    [
        (bench_gpu_sequence, "sequence_gpu", {"cudnn", "seq2seq_ext"}),
        (
            bench_gpu_step,
            "step_gpu",
            {"torch", "torch, graph", "seq2seq_ext", "seq2seq_ext, graph"},
        ),
    ],
    ids=["sequence", "step"],
)
def test_rows(results, bench, name, contenders):
    assert bench.main(["--device", "cpu"]) == 0
    with (results / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["contender"] for row in rows} == contenders
    for row in rows:
        assert row.get("agrees", "True") == "True"
        assert all(value != "" for key, value in row.items() if key != "cudnn"), row
        numbers = [float(row[key]) for key in ("p20_us", "median_us", "p80_us", "speedup")]
        assert all(math.isfinite(n) and n > 0 for n in numbers)
        assert numbers[0] <= numbers[1] <= numbers[2]


def test_rows_survive_a_stop(results):
    """A row is in the file as soon as it is measured."""
    from benchmarks.gpu import Rows

    rows = Rows("some", {"device": "x"})
    for n in range(3):
        rows.add({"n": n})
        assert len((results / "some.csv").read_text().splitlines()) == 2 + n


def test_rows_of_another_run_stay(results):
    """The marks' rows, measured first, when the rest is measured; a new run begins anew."""
    from benchmarks.gpu import Rows

    Rows("some", {"device": "x"}).add({"n": 0})
    Rows("some", {"device": "x"}, more=True).add({"n": 1})
    assert (results / "some.csv").read_text().split() == ["n,device", "0,x", "1,x"]
    Rows("some", {"device": "x"}).add({"n": 2})
    assert (results / "some.csv").read_text().split() == ["n,device", "2,x"]


def test_the_rest_is_all_but_the_marks():
    first, rest = (
        set(bench_gpu_sequence.sizes(*which)) for which in ((True, False), (False, True))
    )
    assert first | rest == set(bench_gpu_sequence.sizes(False, False))
    assert not first & rest
    assert first


@pytest.mark.parametrize("found", [0.2, math.nan])
def test_contenders_that_disagree_are_marked_and_fail(results, monkeypatch, capsys, found):
    """All rows are there, and each says which."""
    monkeypatch.setattr(bench_gpu_sequence, "disagreement", lambda a, b: found)
    assert bench_gpu_sequence.main(["--device", "cpu"]) == 1
    with (results / "sequence_gpu.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8  # two sizes, inference and training, two contenders
    assert {row["agrees"] for row in rows} == {"False"}
    said = capsys.readouterr()
    assert said.out.count("NOT THE SAME RESULT") == 4
    assert "4 failed" in said.err


def test_endurance_notices_other_bits(monkeypatch, capsys):
    assert gpu_endurance.main(["--device", "cpu", "--repeat", "1"]) == 0
    made = gpu_endurance.results
    calls = iter(range(1000))

    def drifting(*args):
        return [t + (next(calls) > 0) for t in made(*args)]

    monkeypatch.setattr(gpu_endurance, "results", drifting)
    assert gpu_endurance.main(["--device", "cpu", "--repeat", "1"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_run_gpu_is_a_script_that_says_when_there_is_no_gpu(results):
    script = table.ROOT / "benchmarks" / "run_gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU: running it takes minutes")
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no GPU that torch can use" in done.stdout


CASES = table.ROOT / "tests" / "host_execution" / "cases.txt"
STAND_INS = {
    "nvidia-smi": "echo some GPU",
    "nvcc": "echo release 13.0; echo end",
    "cmake": "",
    "compute-sanitizer": 'until [ "$1" = "$BENCH" ]; do shift; done; exec "$@"',
    "python": 'case "$*" in *capability*) echo 90 ;; *torch*) echo torch ;; esac',
    "bench": 'echo "took part: $*"; echo csv latency,flag,8,1.5; [ "$1" != "$FAILING" ]',
}


@pytest.mark.parametrize("failing", ["none", "latency"])
def test_run_gpu_keeps_every_report(results, tmp_path, failing):
    """With stand-ins for all that needs a GPU: each step's output stays in the report, a failure is
    counted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": str(folder / "python"),
        "BENCH": str(folder / "bench"),
        "FAILING": failing,
    }
    script = table.ROOT / "benchmarks" / "run_gpu.sh"
    done = subprocess.run(
        ["bash", script], capture_output=True, text=True, check=False, env=environment
    )
    report = (results / "gpu_report.txt").read_text()
    assert done.returncode == (failing == "latency"), done.stdout + done.stderr
    assert f"{done.returncode} failed" in done.stdout
    assert done.stderr == ""
    steps = (
        *("build kernel_bench", "PTX wrappers", "every kernel", "ops on CUDA"),
        *("sequences of the marks", "single steps", "decode loops", "barrier latencies"),
        *("persistent", "memcheck", "racecheck", "synccheck", "all sequences"),
    )  # the marks' rows before the checks that take long
    begun = re.findall("^---- (.*?):", report, re.MULTILINE)
    assert len(begun) == len(steps)
    assert all(map(str.__contains__, begun, steps)), begun
    for step in steps:
        assert re.search(f"^(ok|FAIL) .*{step}", report, re.MULTILINE), step
    kernels = {line.split()[0] for line in CASES.read_text().splitlines() if line[:1].isalpha()}
    for kernel in kernels - {"large:"}:
        assert f"took part: {kernel} " in report, kernel
    assert (results / "latency_gpu.csv").read_text() == "kind,blocks,us\nflag,8,1.5\n"
