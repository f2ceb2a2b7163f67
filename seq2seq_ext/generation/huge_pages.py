# SPDX-License-Identifier: MIT
"""Memory in huge pages, for weights that are read from end to end at every step.

In pages of 4 KiB tens of megabytes have more pages than a processor keeps addresses of, so that
each page is looked up in tables on the way. Linux hands out pages of 2 MiB where a program asks for
them.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_PAGE, _LINE = 2 << 20, 64


def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of contiguous CPU tensors, one after the other; or, where there are no huge pages or
    the tensors do not fill one, these themselves."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone has it
    ends = [0]
    for tensor in tensors:
        ends.append(ends[-1] + -(-tensor.nbytes // _LINE) * _LINE)
    if advice is None or ends[-1] < _PAGE:
        return list(tensors)
    whole = -(-ends[-1] // _PAGE) * _PAGE
    # Whole pages lie in it wherever it begins. What nobody touches takes no memory.
    memory = mmap.mmap(-1, whole + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them: then these are pages like others
        memory.madvise(advice)
    bytes_ = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the memory
    bytes_ = bytes_[-bytes_.data_ptr() % _PAGE :]
    return [
        bytes_[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        for begin, tensor in zip(ends[:-1], tensors, strict=True)
    ]
