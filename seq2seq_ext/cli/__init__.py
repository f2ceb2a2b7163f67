# SPDX-License-Identifier: MIT
"""The command line: `seq2seq-ext`, also `python -m seq2seq_ext`. Needs the extra `train`."""

_EXTRA = {"tokenizers", "safetensors", "sacrebleu", "rich", "typer", "matplotlib", "numpy"}

try:
    from seq2seq_ext.cli.app import app, main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in _EXTRA:
        raise
    raise ImportError(
        f"The command line needs {error.name}, which is not installed: "
        "pip install seq2seq_ext[train]"
    ) from None

__all__ = ["app", "main"]
