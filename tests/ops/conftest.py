# SPDX-License-Identifier: MIT
"""Tests here are many and small: one thread, unless a test asks for more."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_threads_restored):
    torch.set_num_threads(1)
