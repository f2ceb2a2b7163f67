# SPDX-License-Identifier: MIT
"""All tests of this folder again, with the other instruction sets that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# Set in the processes started here and by test_sanitizers.py, which then start none themselves.
NESTED = "SEQ2SEQ_EXT_NESTED_TEST"


@pytest.mark.skipif(NESTED in os.environ, reason="already one of several runs")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_isa(cpu_kernels, isa):
    if isa == cpu_kernels.isa_name():
        pytest.skip("what the other tests of this run use")
    env = os.environ | {"SEQ2SEQ_EXT_CPU_ISA": isa, NESTED: "1"}
    env["SEQ2SEQ_EXT_KERNELS_DIR"] = os.path.dirname(cpu_kernels.__file__)
    env["PYTHONPATH"] = env["SEQ2SEQ_EXT_KERNELS_DIR"]
    probe = "import _kernels; print(_kernels.isa_name())"
    name = subprocess.run(
        [sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()
    if name != isa:
        pytest.skip(f"this machine has no {isa}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--confcutdir={FOLDER}", str(FOLDER)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
