# SPDX-License-Identifier: MIT
"""Weights moved to huge pages: the same values, where a program of Linux can ask for them."""

import copy
import gc
import mmap
import re
from pathlib import Path

import pytest
import torch

from seq2seq_ext.generation import huge_pages

from .models import make, sources

needs_linux = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has huge pages to ask for"
)


def flags_of(tensor):
    """The kernel's flags of the mapping that the tensor lies in."""
    address, inside = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no such mapping")


@needs_linux
def test_values_stay_and_huge_pages_are_asked_for():
    given = [
        torch.randn(700, 1000),
        torch.randn(3, 5, 7).bfloat16(),
        torch.randint(-128, 128, (1001,), dtype=torch.int8),
        torch.randn(300, 100, dtype=torch.float64),
    ]
    moved = huge_pages.moved(given)
    for before, after in zip(given, moved, strict=True):
        assert after.dtype == before.dtype
        assert torch.equal(after, before)
        assert after.is_contiguous()
        assert after.data_ptr() != before.data_ptr()
        assert after.data_ptr() % 64 == 0
    assert moved[0].data_ptr() % (2 << 20) == 0
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert "hg" in flags_of(moved[0])
    ends = [t.data_ptr() + t.nbytes for t in moved]
    assert all(t.data_ptr() >= end for t, end in zip(moved[1:], ends, strict=False))


def test_what_fills_no_page_stays_where_it_is():
    given = [torch.randn(4, 4), torch.randn(7)]
    assert all(a is b for a, b in zip(huge_pages.moved(given), given, strict=True))
    assert huge_pages.moved([]) == []


@needs_linux
def test_the_memory_lives_as_long_as_one_of_them():
    last = huge_pages.moved([torch.zeros(1 << 20), torch.full((1000,), 3.0)])[1]
    gc.collect()
    others = huge_pages.moved([torch.ones(1 << 20)])
    assert bool((last == 3).all())
    assert bool((others[0] == 1).all())


def test_a_prepared_model_can_be_copied():
    model, (src, lengths) = make(vocab=9000, hidden_size=64), sources(3)
    model.prepare_for_decoding(torch.float32)
    expected = model.generate(src, lengths, max_new_tokens=5)
    assert torch.equal(copy.deepcopy(model).generate(src, lengths, max_new_tokens=5), expected)
