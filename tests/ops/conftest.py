# SPDX-License-Identifier: MIT
"""Tests here are many and small: one thread, unless a test asks for more."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from tests.ops.cases import running


@pytest.fixture
def module(backend: str) -> Iterator[ModuleType]:
    """What to call: `ops` or `reference`, as the parameter `backend` of a test says. All of a test
    that takes this runs on the device of that backend."""
    with running(backend) as found:
        yield found


@pytest.fixture(autouse=True)
def _one_thread(_threads_restored):
    torch.set_num_threads(1)
