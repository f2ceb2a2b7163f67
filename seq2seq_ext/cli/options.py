# SPDX-License-Identifier: MIT
"""Options shared by commands: their limits, and errors told in their names."""

from __future__ import annotations

import re

from seq2seq_ext.cli.console import CommandError
from seq2seq_ext.data.tokenizer import Tokenizer
from seq2seq_ext.training.config import ModelConfig
from seq2seq_ext.training.translator import Translator

MAX_SEED = 2**63 - 1  # what torch takes
MAX_SIZE = 2**31 - 1
MAX_THREADS = 1024

# Where an option is not the field's name with dashes.
_OPTIONS = {
    "learning_rate": "--lr",
    "num_layers": "--layers",
    "hidden_size": "--hidden",
    "embedding_size": "--embedding",
}
_SAME = ("input_feeding", "tied_embeddings", "label_smoothing", "teacher_forcing", "max_minutes")
_WORDS = ("context", "bridge", "attention", "dropout", "clip", "schedule", "dtype", "cell")


def in_options(message: str) -> str:
    """A message about a configuration's fields, said with the command line's options.

    >>> in_options("Decoder: input_feeding is for context 'attention'")
    "--input-feeding is for --context 'attention'"
    """
    message = re.sub(r"^[A-Z][\w.]*: ", "", message)  # the module
    message = message.replace(" or encoder_hidden_size be given", "")
    for name in (*_OPTIONS, *_SAME):
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        message = re.sub(rf"\b{name}\b", option, message)
    for name in _WORDS:  # these are words as well: only before a value or at the start
        message = re.sub(rf"(?<![\w'-]){name}(?= ')|^{name}(?=:| must| is)", f"--{name}", message)
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
