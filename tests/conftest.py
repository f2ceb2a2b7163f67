# SPDX-License-Identifier: MIT
"""What every test gets: fixed seeds, few threads, `cuda` tests skipped without a GPU."""

import os
import signal
from collections import Counter

# Before torch is imported. Two threads show what only threads show; more slow small tests down.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Processes that test side by side have more threads than processors: one that spins keeps the one
# that it waits for from running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A shell starts background jobs with Ctrl-C ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings

# Every run the same examples; `pytest --hypothesis-profile=random` looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("random", print_blob=True)
settings.load_profile("fixed")

SEED = 20260101
# Of few tests but minutes each: they compile, and run programs and processes of their own. One that
# came last would keep the other processes waiting.
FIRST = (
    "tests/host_execution/test_kernels.py",
    "tests/packaging/test_cuda_library.py",
    "tests/kernels/test_sanitizers.py",
    "tests/kernels/test_every_isa.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those of the most tests. (xdist's own order is that of the
    number of tests alone; `make test` switches it off.)"""
    files = [item.nodeid.partition("::")[0] for item in items]
    number = Counter(files)
    key = {f: (FIRST.index(f) if f in FIRST else len(FIRST), -number[f], f) for f in number}
    items.sort(key=lambda item: key[item.nodeid.partition("::")[0]])
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
