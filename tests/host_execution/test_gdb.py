# SPDX-License-Identifier: MIT
"""The commands that show CUDA threads in gdb."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.host_execution.programs import LAYER

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb")

SOURCE = LAYER / "tests" / "warps_test.cpp"


def line_of(text: str) -> int:
    lines = SOURCE.read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


def gdb(program: Path, *commands: str) -> str:
    words = [word for command in commands for word in ("-ex", command)]
    script = str(LAYER / "gdb" / "host_execution.py")
    # -nx: not the user's own settings
    command = ["gdb", "-nx", "-q", "-batch", "-x", script, *words]
    command += ["--args", str(program), "partial_masks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


def test_threads_and_a_condition(host_test: Path) -> None:
    output = gdb(
        host_test,
        f"break warps_test.cpp:{line_of('void even_and_odd')} if $hx_at(0, 37)",
        "run",
        "print hx::current->rank",
        "hx-threads",
        "hx-thread 0 37 bt 1",
        "hx-thread 0 999",
        "delete",
        "continue",
    )
    assert "$1 = 37" in output, output
    assert re.search(r"1 running .* block, thread: 0 37", output), output
    assert re.search(r"#0 .*even_and_odd \(\) at .*warps_test\.cpp", output), output
    assert "no such thread" in output, output
    assert "1 tests, 0 failures" in output, output


def test_stack_of_a_thread_that_waits(host_test: Path) -> None:
    output = gdb(
        host_test,
        f"break warps_test.cpp:{line_of('out[t] = sum;')} if hx::block().grid_dim.x == 1",
        "run",
        "hx-threads",
        "python t = next(t for b, t in threads() if state(t) == 'waiting')",
        "python gdb.execute(f\"hx-thread 0 {int(t['rank'])}\")",
        "bt 1",
        "kill",
    )
    # The one that waits, then the one that runs: its registers are back.
    stacks = re.findall(r"#\d+ .*?(?:in )?([\w:]+)(?:<\w+>)? \(", output)
    assert "hx::wait" in stacks, output
    assert "even_and_odd" in stacks[stacks.index("hx::wait") :], output
    assert stacks[-1] == "even_and_odd", output
    assert re.search(r"waiting +__(shfl_sync|syncwarp) at warps_test\.cpp:\d+", output), output


def test_nothing_runs(host_test: Path) -> None:
    output = gdb(host_test, "break main", "run", "hx-threads", "hx-thread 0 0", "kill")
    assert "no kernel runs" in output
    assert "no such thread" in output
