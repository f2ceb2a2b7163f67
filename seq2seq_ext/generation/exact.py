# SPDX-License-Identifier: MIT
"""exp and log in float64, made of additions, multiplications and divisions only.

IEEE 754 fixes the result of those to the bit: what is decoded with these is the same on every
machine and in every batch. torch promises neither of its own functions (the last elements of a
tensor go through another routine in some, `sigmoid` for one).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# ln 2 in two parts; the first has zeros at its end, so that k * _LN2_HIGH is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_EXP_TERMS, _LOG_TERMS = 14, 12
_LOWEST = -745.0  # exp of less is zero


def exp(x: Tensor) -> Tensor:
    """e**x for x <= 0, any shape, float64; results under 2**-1022 are zero."""
    x = x.double()
    k = torch.round(x.clamp(min=_LOWEST) / math.log(2))
    r = (x.clamp(min=_LOWEST) - k * _LN2_HIGH) - k * _LN2_LOW
    y = torch.ones_like(r)
    for n in range(_EXP_TERMS, 0, -1):
        y = y * r / n + 1
    # 2**k by its bits; a NaN has no k.
    k = torch.where(x.isnan(), 0.0, k).long()
    power = ((k + 1023) << 52).view(torch.float64)
    return torch.where(x.isnan(), x, torch.where(k < -1022, 0.0, y * power))


def log(x: Tensor) -> Tensor:
    """Natural logarithm of x >= 0, any shape, float64; of zero -inf."""
    x = x.double()
    mantissa, exponent = torch.frexp(x)
    low = mantissa < math.sqrt(0.5)
    m = torch.where(low, 2 * mantissa, mantissa)
    k = (exponent - low.to(exponent.dtype)).double()
    r = (m - 1) / (m + 1)  # log m = 2 (r + r^3 / 3 + r^5 / 5 + ...), |r| < 0.172
    square = r * r
    y = torch.zeros_like(r)
    for n in range(_LOG_TERMS, -1, -1):
        y = y * square + 1 / (2 * n + 1)
    y = k * _LN2_HIGH + (2 * r * y + k * _LN2_LOW)
    return torch.where(x == 0, -math.inf, torch.where(x == math.inf, math.inf, y))
