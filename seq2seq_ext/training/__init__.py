# SPDX-License-Identifier: MIT
"""Training and using translators of text. Needs the extra `train`."""

from seq2seq_ext.training.config import ModelConfig, TrainConfig
from seq2seq_ext.training.metrics import Scores, score
from seq2seq_ext.training.trainer import Reporter, Trainer
from seq2seq_ext.training.translator import ModelError, Translator

__all__ = [
    "ModelConfig",
    "ModelError",
    "Reporter",
    "Scores",
    "TrainConfig",
    "Trainer",
    "Translator",
    "score",
]
