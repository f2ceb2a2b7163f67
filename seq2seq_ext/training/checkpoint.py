# SPDX-License-Identifier: MIT
"""What a run needs to go on exactly where it stopped."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seq2seq_ext.data.batching import Example
from seq2seq_ext.training.files import replacing
from seq2seq_ext.training.translator import ModelError

CHECKPOINT = "checkpoint.pt"
_PARTS = {
    "model": dict,
    "optimizer": dict,
    "rng": torch.Tensor,
    "progress": dict,
    "config": dict,
    "data": str,
    "extra": dict,
}


def fingerprint(examples: Sequence[Example]) -> str:
    """Tells one set of training examples from another."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode())
    return digest.hexdigest()


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Raises OSError where the file cannot be written; the one of before then stays."""
    # A file of Python's, not a name: torch would hide the system's reason.
    with replacing(directory / CHECKPOINT) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(directory: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote; nothing in the file is executed.

    Raises:
        ModelError: there is none, or it is broken.
    """
    path = directory / CHECKPOINT
    if not path.is_file():
        raise ModelError(f"{directory}: nothing to resume, {CHECKPOINT} is missing")
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise ModelError(f"{path}: broken checkpoint") from None
    if not isinstance(state, dict):
        raise ModelError(f"{path}: not a checkpoint of this program")
    for name, kind in _PARTS.items():
        if not isinstance(state.get(name), kind):
            raise ModelError(f"{path}: not a checkpoint of this program, {name!r} is missing")
    return state
