# SPDX-License-Identifier: MIT
"""Draws from the vocabulary: the function that `ops` offers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, reference
from ._routing import cast, cast_dtypes, is_strict, without_autocast


def vocab_sample(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    seed: Tensor | int,
    step: Tensor | int,
    rows: Tensor | None = None,
    banned: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One word a row, drawn from the distribution of `vocab_pick`, without writing it out.

    The word is the one with the largest logit + Gumbel noise, the noise being a function of
    (seed, step, row id, word) alone: Philox-4x32-10 of Salmon et al. 2011. So a draw repeats, and
    does not depend on the batch, the number of threads or the kind of device, but for logits that
    differ by rounding.

    Not differentiable: the results are detached.

    Args:
        hidden: (B, H).
        weight: (V, H).
        bias: (V,) or None.
        seed: one int64 on hidden's device, or an int, -2**63 <= seed < 2**64. A tensor is read when
            the kernel runs, so it may change between replays of a CUDA graph; so may `step`.
        step: likewise; counts modulo 2**32.
        rows: (B,) int64, an id for each row; None: 0 .. B-1. Rows of one id and the same logits
            draw the same word.
        banned: see `vocab_pick`.
        temperature: positive.

    Returns:
        log_probs (B,), float32 (float64 for float64): the drawn word's, in the distribution that it
        was drawn from, i.e. after temperature and bans, the noise left out. indices (B,) int64. A
        row whose logits hold a NaN or +inf, or nothing but -inf (all banned, say), gives NaN and 0.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit.
    """
    from . import ops  # which imports this module

    try:
        if temperature != 1:
            _checks.temperature(temperature)
        seed, step = _number("seed", seed, hidden), _number("step", step, hidden)
        options: dict[str, Any] = {"rows": rows, "banned": banned, "temperature": temperature}
        if ops.must_cast(hidden):
            if is_strict(hidden):
                _checks.vocab(hidden, weight, bias, 1, banned)
            dtype, _ = cast_dtypes(hidden)
            given = (cast(hidden, dtype), cast(weight, dtype), cast(bias, dtype))
            with without_autocast(hidden):
                return vocab_sample(*given, seed=seed, step=step, **options)
        if ops._has_kernel(hidden):
            if torch.is_grad_enabled():
                hidden, weight = hidden.detach(), weight.detach()
                bias = None if bias is None else bias.detach()
            drawn: tuple[Tensor, Tensor] = ops.kernels.vocab_sample(
                hidden, weight, bias, seed, step, rows, banned, temperature
            )
            return drawn
        _checks.vocab(hidden, weight, bias, 1, banned)
        _checks.draw(hidden, seed, step, rows)
        with torch.no_grad():
            return reference.vocab_sample(hidden, weight, bias, seed=seed, step=step, **options)
    except _checks.TYPE_ERRORS:
        _checks.types(hidden=hidden, weight=weight, bias=bias, seed=seed, step=step)
        _checks.types(rows=rows, banned=banned, temperature=temperature)
        raise


def _number(argument: str, value: Any, hidden: Tensor) -> Tensor:
    """`value` as an int64 tensor; an int beyond its range keeps its 64 bits."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, int):
        _checks.types(**{argument: value})
    if not -(2**63) <= value < 2**64:
        _checks.fail(argument, "-2**63 to 2**64 - 1", value)
    signed = value - 2**64 if value >= 2**63 else value
    return torch.full((), signed, dtype=torch.int64, device=hidden.device)
