# SPDX-License-Identifier: MIT
"""Options shared by commands: their limits, and errors told in their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch

from seq2seq_ext.cli.console import CommandError, log
from seq2seq_ext.data.tokenizer import Tokenizer
from seq2seq_ext.training.config import ModelConfig
from seq2seq_ext.training.translator import Translator

MAX_SEED = 2**63 - 1  # what torch takes
MAX_SIZE = 2**31 - 1
MAX_THREADS = 1024
MAX_BEAM = 1000

DecodingDtype = Literal["float32", "bfloat16", "int8"]

# Where an option is not the field's name with dashes.
_OPTIONS = {
    "learning_rate": "--lr",
    "num_layers": "--layers",
    "hidden_size": "--hidden",
    "embedding_size": "--embedding",
    "num_beams": "--beam",
    "num_return_sequences": "--n-best",
    "do_sample": "--sample",
    "output_attentions": "--attention",
}
_SAME = (
    "input_feeding",
    "tied_embeddings",
    "label_smoothing",
    "teacher_forcing",
    "max_minutes",
    "top_k",
    "top_p",
    "min_p",
    "length_penalty",
    "coverage_penalty",
)
_WORDS = (
    "context",
    "bridge",
    "attention",
    "dropout",
    "clip",
    "schedule",
    "dtype",
    "cell",
    "temperature",
    "seed",
)


def in_options(message: str) -> str:
    """A message about a configuration's fields, said with the command line's options.

    >>> in_options("Decoder: input_feeding is for context 'attention'")
    "--input-feeding is for --context 'attention'"
    """
    message = re.sub(r"^(generate|[A-Z][\w.]*): ", "", message)  # the module
    message = message.replace(" or encoder_hidden_size be given", "")
    for name in (*_OPTIONS, *_SAME):
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        message = re.sub(rf"(?<![\w-]){name}\b", option, message)
    for name in _WORDS:  # these are words as well: only before a value or at the start
        first = rf"^{name}(?=:| must| is| has)"
        message = re.sub(rf"(?<![\w'-]){name}(?= ')|{first}", f"--{name}", message)
    return message


def build_model(
    config: ModelConfig, source: Tokenizer, target: Tokenizer, max_new_tokens: int
) -> Translator:
    """Raises CommandError: options that contradict each other, or more than memory holds."""
    try:
        return Translator.build(config, source, target, max_new_tokens=max_new_tokens)
    except (MemoryError, OverflowError, RuntimeError):
        sizes = f"--hidden {config.hidden_size}, --layers {config.num_layers}"
        raise CommandError(f"a model of {sizes} does not fit into memory") from None
    except (ValueError, TypeError) as error:
        raise CommandError(in_options(str(error))) from None


@dataclass(frozen=True)
class Decoding:
    """How `translate` decodes. None: not given, the model's own configuration holds."""

    beam: int | None = None
    n_best: int | None = None
    sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    length_penalty: float | None = None
    coverage_penalty: float | None = None

    def options(self) -> dict[str, Any]:
        """What `generate` takes."""
        values = {**vars(self), "num_beams": self.beam, "num_return_sequences": self.n_best}
        for name in ("beam", "n_best", "sample"):
            del values[name]
        if self.sample:
            values["do_sample"] = True
            values["num_beams"] = self.beam or 1
        elif self.beam is not None:
            values["do_sample"] = False
        return {name: value for name, value in values.items() if value is not None}


def prepare(translator: Translator, dtype: DecodingDtype | None) -> str:
    """Packs the weights for decoding; returns the dtype that they are read in.

    None: that of the model, and where its weights cannot be packed, the log says so.

    Raises CommandError: the dtype that is asked for cannot be had.
    """
    own = str(next(translator.model.parameters()).dtype).removeprefix("torch.")
    try:
        translator.model.prepare_for_decoding(getattr(torch, dtype or own))
    except ValueError as error:
        reason = str(error).removeprefix("prepare_for_decoding: ")
        if dtype is not None:
            raise CommandError(f"--dtype {dtype}: {reason}") from None
        log.print(f"weights are read as they are, not packed for decoding: {reason}")
    return dtype or own


def known_failure(error: BaseException) -> CommandError | None:
    """What the machine or the environment is to blame for, in one sentence; None: a defect."""
    message = str(error)
    setting = re.search(r"[^\n]*\bSEQ2SEQ_EXT_[A-Z_]+[^\n]*", message)
    if setting:
        return CommandError(setting[0])
    memory = ("can't allocate memory", "not enough memory", "std::bad_alloc")
    if isinstance(error, MemoryError) or any(words in message for words in memory):
        return CommandError("out of memory: try a smaller --batch-size")
    return None
