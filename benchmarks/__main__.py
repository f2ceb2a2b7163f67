# SPDX-License-Identifier: MIT
"""`python -m benchmarks [--quick] [--check]`: every benchmark in turn, then pictures and tables.

Each in a process of its own: one that fails does not stop the others, and the exit status says so.
With --quick rows, pictures and tables go to build/benchmarks/quick.
"""

import subprocess
import sys
import time

from .common import keep_apart

BENCHES = ("bench_sequence", "bench_train", "bench_step", "bench_decode", "bench_growth")


def run(module: str, arguments: list[str]) -> int:
    print(f"\n==== {module}", flush=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    status = subprocess.run(command, check=False).returncode
    print(f"==== {module}: {time.perf_counter() - start:.0f} s, exit status {status}", flush=True)
    return status


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    if "--quick" in arguments:
        keep_apart()
    found = {bench: run(bench, arguments) for bench in BENCHES}
    found |= {module: run(module, []) for module in ("plot", "table")}
    failed = [module for module, status in found.items() if status]
    if failed:
        print("failed:", *failed, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
