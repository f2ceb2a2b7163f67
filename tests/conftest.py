# SPDX-License-Identifier: MIT
"""What every test gets: fixed seeds, few threads, `cuda` tests skipped without a GPU."""

import os

# Before torch is imported. Two threads show what only threads show; more slow small tests down.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Processes that test side by side have more threads than processors: one that spins keeps the one
# that it waits for from running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

SEED = 20260101


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda") is not None:  # a folder may be called that, too
            item.add_marker(skip)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names of tests do not tell random numbers: all processes have to find the same ones."""
    if not isinstance(val, torch.Tensor):
        return None
    return f"{str(val.dtype).removeprefix('torch.')}{list(val.shape)}"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Fresh random inputs in every test, the same ones in every run."""
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def _threads_restored():
    """A test may set the number of threads; the next one does not see it."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
