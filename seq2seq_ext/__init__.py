# SPDX-License-Identifier: MIT
"""Fused kernels for recurrent sequence-to-sequence models in PyTorch.

`seq2seq_ext.nn` holds drop-in modules, `seq2seq_ext.ops` the functions they are built on, and
`seq2seq_ext.backend_info()` says which libraries run.
"""

import importlib
from types import ModuleType

from ._backend import BackendWarning, backend_info, load

__version__ = "0.1.0.dev0"

__all__ = ["BackendWarning", "__version__", "backend_info", "nn", "ops"]

load()

_SUBMODULES = ("nn", "ops")


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
