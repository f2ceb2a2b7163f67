# SPDX-License-Identifier: MIT
"""All tests of this folder again, with the other instruction sets that this machine has."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# Set in the processes started here and by test_sanitizers.py, which then start none themselves.
NESTED = "SEQ2SEQ_EXT_NESTED_TEST"
ISAS = ("baseline", "avx2", "avx512")


@pytest.fixture(scope="module")
def runs(cpu_kernels):
    """By ISA, a run to come: two at a time, for each keeps one core busy."""
    with ThreadPoolExecutor(2) as pool:
        yield {isa: pool.submit(run, cpu_kernels, isa) for isa in ISAS}


def run(cpu_kernels, isa):
    """A finished process; None: this machine has no such ISA; False: it is the run at hand's."""
    if isa == cpu_kernels.isa_name():
        return False
    env = os.environ | {"SEQ2SEQ_EXT_CPU_ISA": isa, NESTED: "1"}
    env["SEQ2SEQ_EXT_KERNELS_DIR"] = os.path.dirname(cpu_kernels.__file__)
    env["PYTHONPATH"] = env["SEQ2SEQ_EXT_KERNELS_DIR"]
    probe = "import _kernels; print(_kernels.isa_name())"
    name = subprocess.run(
        [sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()
    if name != isa:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, f"--confcutdir={FOLDER}", str(FOLDER)], env=env, capture_output=True, text=True
    )


@pytest.mark.skipif(NESTED in os.environ, reason="already one of several runs")
@pytest.mark.parametrize("isa", ISAS)
def test_isa(runs, isa):
    done = runs[isa].result()
    if done is False:
        pytest.skip("what the other tests of this run use")
    if done is None:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
