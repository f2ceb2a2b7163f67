# SPDX-License-Identifier: MIT
"""Decoding: `GenerationConfig`, the loop behind `Seq2Seq.generate`, and what it returns."""

from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.greedy import GenerateOutput, generate

__all__ = ["GenerateOutput", "GenerationConfig", "generate"]
