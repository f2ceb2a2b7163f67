# SPDX-License-Identifier: MIT
"""Settings of a training run, as plain data that is stored with the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

DTYPES = ("float32", "bfloat16", "float64")
SCHEDULES = ("constant", "linear", "plateau")


@dataclass(frozen=True)
class ModelConfig:
    """What `Seq2Seq.build` needs beside the vocabularies; see there."""

    cell: str = "gru"
    num_layers: int = 1
    hidden_size: int = 256
    embedding_size: int = 256
    bidirectional: bool = True
    context: str = "attention"
    attention: str | None = None
    input_feeding: bool = False
    bridge: str = "linear_tanh"
    dropout: float = 0.2
    tied_embeddings: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs, max_minutes: whichever comes first; None: no limit of time.
        learning_rate, schedule: Adam's; "constant", "linear" (to zero over all epochs) or
            "plateau" (halved after each epoch that does not improve on the validation loss).
        clip: largest norm of the gradient; 0: none.
        teacher_forcing: share of decoder steps that read the true previous token.
        patience: epochs without a better validation loss before training stops; 0: never.
        dtype: "float32", "float64", or "bfloat16" (autocast: weights stay float32).
    """

    epochs: int = 20
    max_minutes: float | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "constant"
    clip: float = 1.0
    label_smoothing: float = 0.0
    teacher_forcing: float = 1.0
    patience: int = 0
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        checks = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("max_minutes", self.max_minutes is None or self.max_minutes > 0, "more than 0"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "more than 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("clip", self.clip >= 0, "at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("teacher_forcing", 0 <= self.teacher_forcing <= 1, "in [0, 1]"),
            ("patience", self.patience >= 0, "at least 0"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        )
        for name, right, expected in checks:
            if not right:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    @property
    def parameter_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
