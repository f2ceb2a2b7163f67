# SPDX-License-Identifier: MIT
"""Which CUDA kernel a sequence would run on, and how it would be cut."""

from __future__ import annotations

from typing import Any

import torch

from . import _backend

# What a block may opt in to, in KiB; for a GPU that is not at hand.
_SHARED_KIB = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}
_CUT = (
    "unit_blocks",
    "batch_blocks",
    "unit_tile",
    "batch_tile",
    "shared_bytes",
    "chunk_steps",
)


def _properties(device: torch.device | str | int | tuple[int, ...] | None) -> tuple[int, int, int]:
    """(arch, multiprocessors, bytes of shared memory a block may have)."""
    if isinstance(device, tuple):
        arch, sms, *rest = device
        return arch, sms, rest[0] if rest else _SHARED_KIB.get(arch, 99) << 10
    found: Any = torch.cuda.get_device_properties(device)  # its stub lacks an attribute
    return (
        10 * found.major + found.minor,
        found.multi_processor_count,
        found.shared_memory_per_block_optin,
    )


def plan_sequence(
    cell: str,
    T: int,
    B: int,
    H: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    input_size: int | None = None,
    proj_size: int = 0,
    directions: int = 1,
    backward: bool = False,
    device: torch.device | str | int | tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Which CUDA kernel runs a sequence of these sizes: a function of shape and device alone.

    Args:
        cell: "lstm", "gru", "tanh" or "relu".
        T, B, H: time steps, batch, hidden size.
        dtype: of x and the weights.
        input_size: I; None: H.
        proj_size: P of a projected LSTM; 0: none.
        directions: 1 or 2.
        backward: the backward recurrence instead of the forward one.
        device: a GPU in this machine (None: the current one), or one that need not be: (arch,
            multiprocessors), for example (90, 132), or (arch, multiprocessors, bytes of shared
            memory per block).

    Returns:
        ``kernel``: "persistent" (the recurrent weights stay on the chip for all steps) or
        "stepwise" (a product and a cell kernel each step), ``reason`` for the latter, ``device`` as
        it was counted, and for the former how it is cut: ``unit_blocks`` that share H, each with
        ``unit_tile`` units, times ``batch_blocks`` of ``batch_tile`` rows, ``shared_bytes`` of a
        block, ``chunk_steps`` of a launch.

    Raises:
        ValueError: a size or a name does not fit.
        RuntimeError: there is no CUDA library, or no GPU and no `device`.
    """
    problem = _backend.problem_of_library("cuda")
    if problem is not None:
        raise RuntimeError(f"seq2seq_ext has no cuda library: {problem}")
    sizes = {"T": T, "B": B, "H": H, "input_size": H if input_size is None else input_size}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if directions not in (1, 2):
        raise ValueError(f"directions: expected 1 or 2, got {directions}")
    properties = _properties(device)
    persistent, reason, cut = torch.ops.seq2seq_ext.sequence_plan(
        cell, dtype, T, B, sizes["input_size"], H, proj_size or H, directions, backward, *properties
    )
    plan = {"kernel": "persistent" if persistent else "stepwise", "reason": reason or None}
    plan["device"] = dict(zip(("arch", "sms", "shared_per_block"), properties, strict=True))
    return plan | (dict(zip(_CUT, cut, strict=True)) if persistent else {})
