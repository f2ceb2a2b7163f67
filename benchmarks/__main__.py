# SPDX-License-Identifier: MIT
"""`python -m benchmarks [--quick]`: every benchmark in turn."""

import sys

from . import bench_sequence, bench_step

if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(max(bench_sequence.main(arguments), bench_step.main(arguments)))
