# SPDX-License-Identifier: MIT
"""`python -m seq2seq_ext`: the command line, or one sentence on what it lacks."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line; returns the exit code, 2 where it cannot start."""
    try:
        from seq2seq_ext.cli import main as run
    except ImportError as error:
        print(f"seq2seq-ext: {error}", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
