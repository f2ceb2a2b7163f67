# SPDX-License-Identifier: MIT
"""`info`: what runs on this machine."""

from __future__ import annotations

import platform
from importlib import metadata

import torch
from rich.table import Table

import seq2seq_ext
from seq2seq_ext.cli.console import console, set_threads

_PACKAGES = ("tokenizers", "safetensors", "sacrebleu", "rich", "typer", "matplotlib", "numpy")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def run(threads: int | None) -> None:
    set_threads(threads)
    rows = {
        "seq2seq_ext": seq2seq_ext.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }
    for name, value in seq2seq_ext.backend_info().items():
        if isinstance(value, dict):
            rows |= {f"{name} {key}": str(v) for key, v in value.items()}
        else:
            rows[name] = str(value)
    rows |= {package: _version(package) for package in _PACKAGES}
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
