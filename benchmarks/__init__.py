# SPDX-License-Identifier: MIT
"""Benchmarks: `python -m benchmarks`, or one of its parts; README.md states the protocol."""
