# SPDX-License-Identifier: MIT
"""All tests of this folder again, on a build with the sanitizers for addresses and undefined
behaviour."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
BUILD = ROOT / "build" / "kernels-asan"
NESTED = "SEQ2SEQ_EXT_NESTED_TEST"
ISAS = ("", "avx2", "baseline")  # "": the best
# All of "undefined" that can go wrong here but null and alignment, which check every access (the
# vector loads are unaligned by design, and address catches null) and multiply the time to compile.
UNDEFINED = (
    "bounds,shift,signed-integer-overflow,integer-divide-by-zero,enum,bool,float-cast-overflow"
)


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def runtime_library(name: str) -> str | None:
    """The path of a library of the compiler's, or None."""
    compiler = os.environ.get("CXX", "c++").split()
    path = subprocess.run(
        [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return path if os.path.isabs(path) else None


@pytest.fixture(scope="module")
def runs(cpu_kernels):
    """By ISA, the output of a run to come: two at a time, for each keeps one core busy."""
    # libstdc++ besides: the sanitizer looks for what throws exceptions when it is loaded.
    libraries = [runtime_library("libasan.so"), runtime_library("libstdc++.so.6")]
    if None in libraries or shutil.which("cmake") is None:
        pytest.skip("needs cmake and the compiler's libasan")
    if not (BUILD / "CMakeCache.txt").exists():
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        options = [
            f"-DSEQ2SEQ_EXT_SANITIZE=address,{UNDEFINED}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        run(["cmake", "-S", str(ROOT), "-B", str(BUILD), *generator, *options])
    run(["cmake", "--build", str(BUILD)])
    env = os.environ | {
        "SEQ2SEQ_EXT_KERNELS_DIR": str(BUILD),
        NESTED: "1",
        "LD_PRELOAD": " ".join(libraries),
        # Python itself leaks at exit.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [f"--confcutdir={FOLDER}", str(FOLDER)]
    with ThreadPoolExecutor(2) as pool:
        yield {
            isa: pool.submit(run, command, env=env | {"SEQ2SEQ_EXT_CPU_ISA": isa})
            for isa in ISAS
            if isa != cpu_kernels.isa_name()
        }


@pytest.mark.slow
@pytest.mark.skipif(NESTED in os.environ, reason="already one of several runs")
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizer's library")
@pytest.mark.parametrize("isa", ISAS)
def test_address_and_undefined(runs, isa):
    if isa not in runs:
        pytest.skip("the best this machine has, tested already")
    assert " passed" in runs[isa].result()


@pytest.mark.skipif(NESTED not in os.environ, reason="only in a sanitized build")
def test_the_sanitizer_is_there(cpu_kernels):
    """Guards against a run that silently used the plain module."""
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("not a sanitized run")
    with open(cpu_kernels.__file__, "rb") as f:
        assert b"__asan_init" in f.read()
