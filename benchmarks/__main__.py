# SPDX-License-Identifier: MIT
"""`python -m benchmarks [--quick]`: every benchmark in turn."""

import sys

from . import bench_decode, bench_sequence, bench_step

if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(max(bench.main(arguments) for bench in (bench_sequence, bench_step, bench_decode)))
