# SPDX-License-Identifier: MIT
"""Fused kernels for recurrent sequence-to-sequence models in PyTorch.

`seq2seq_ext.nn` holds drop-in modules, `convert` puts them into an existing model, and
`seq2seq_ext.ops` are the functions they are built on. `backend_info()` says which libraries run,
`plan_sequence()` which CUDA kernel a sequence would run on.
"""

from . import nn, ops
from ._backend import BackendWarning, backend_info
from ._plan import plan_sequence
from .convert import convert, revert

__version__ = "0.1.0.dev0"

__all__ = [
    "BackendWarning",
    "__version__",
    "backend_info",
    "convert",
    "nn",
    "ops",
    "plan_sequence",
    "revert",
]
