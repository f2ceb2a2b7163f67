# SPDX-License-Identifier: MIT
import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
KERNELS = FOLDER.parents[1] / "csrc" / "kernels"


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 1001])
def test_chunks(cpu_kernels, count, threads):
    """Contiguous, of one size but for the last, at most `threads`; a nested call makes one."""
    chunks = sorted(cpu_kernels.chunks(count, threads))
    assert len(chunks) <= threads
    assert [i for begin, end, _ in chunks for i in range(begin, end)] == list(range(count))
    sizes = [end - begin for begin, end, _ in chunks]
    assert len(set(sizes[:-1])) <= 1
    assert all(last <= first for first, last in itertools.pairwise(sizes))
    assert all(nested == 1 for _, _, nested in chunks)


def test_callers_at_once(cpu_kernels):
    """Callers from several threads take turns, and each gets the threads it asked for."""
    results = {}

    def call(threads):
        results[threads] = [len(cpu_kernels.chunks(12, threads)) for _ in range(50)]

    callers = [threading.Thread(target=call, args=(n,)) for n in (1, 2, 3, 4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == {n: [n] * 50 for n in (1, 2, 3, 4)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_fork(cpu_kernels):
    """A child has none of the parent's threads, and makes its own."""
    cpu_kernels.chunks(8, 3)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(cpu_kernels.chunks(8, 3)) == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_unknown_isa_is_said(cpu_kernels):
    """The variable is read once a process: asked in another one."""
    code = (
        "import numpy as np, _kernels\n"
        "print(_kernels.isa_name())\n"
        "z = np.zeros((1, 1), np.float32)\n"
        "_kernels.vocab_pick(z, z)\n"
    )
    folder = os.path.dirname(cpu_kernels.__file__)
    env = os.environ | {"SEQ2SEQ_EXT_CPU_ISA": "mmx", "PYTHONPATH": folder}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "none\n"
    assert "SEQ2SEQ_EXT_CPU_ISA" in done.stderr
    assert "avx512, avx2, baseline" in done.stderr
    assert "'mmx'" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs the compiler's libtsan")
@pytest.mark.parametrize("barrier", [1, 0])
def test_the_team_under_the_thread_sanitizer(tmp_path, barrier):
    """Pool, hand-over and barriers; where nothing orders memory it finds the races that are then
    there."""
    compiler = os.environ.get("CXX", "c++").split()
    if shutil.which(compiler[0]) is None or "LD_PRELOAD" in os.environ:
        pytest.skip("needs a compiler, and no other sanitizer")
    program = tmp_path / "team_races"
    sources = [FOLDER / "team_races.cpp", KERNELS / "common" / "runtime.cpp"]
    options = ["-std=c++17", "-O1", "-g1", "-fsanitize=thread", "-pthread", f"-DBARRIER={barrier}"]
    built = subprocess.run(
        [*compiler, *options, f"-I{KERNELS}", *map(str, sources), "-o", str(program)],
        capture_output=True,
        text=True,
    )
    if "tsan" in built.stderr:
        pytest.skip("there is no libtsan")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the sanitizer does not run on this kernel")
    if barrier:
        assert done.stdout == "done\n", done.stderr[-3000:]
        assert "WARNING" not in done.stderr
    else:
        assert "data race" in done.stderr
