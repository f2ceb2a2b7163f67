# SPDX-License-Identifier: MIT
"""The torch-free kernels through NumPy modules: `_kernels`, those of the CPU, that `make kernels`
builds, and `_kernels_cuda_host`, the CUDA kernels run by host execution, that `make host` builds.

Every test of the CPU's kernels runs once per ISA (test_every_isa.py), and once more per ISA under
ASan and UBSan (test_sanitizers.py).
SEQ2SEQ_EXT_KERNELS_DIR and SEQ2SEQ_EXT_HOST_DIR name other folders to take the modules from.
"""

import importlib
import os
import platform
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py


FOLDERS = {
    "_kernels": ("SEQ2SEQ_EXT_KERNELS_DIR", "build/kernels", "make kernels"),
    "_kernels_cuda_host": ("SEQ2SEQ_EXT_HOST_DIR", "build/host", "make host"),
}
# A run inside of a run, with another build or ISA of the CPU's kernels (test_every_isa.py).
NESTED = "SEQ2SEQ_EXT_NESTED_TEST" in os.environ
BACKENDS = {"cpu": "_kernels"} | ({} if NESTED else {"cuda_host": "_kernels_cuda_host"})


def load(name: str) -> ModuleType:
    variable, usual, target = FOLDERS[name]
    folder = os.environ.get(variable, str(ROOT / usual))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            pytest.skip("needs Python's C headers (Debian/Ubuntu: apt install python3-dev)")
        if "host" in name and (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("host execution is tested on Linux x86-64")
        pytest.fail(f"no module {name} in {folder}; `{target}` builds it")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def cpu_kernels() -> ModuleType:
    return load("_kernels")


@pytest.fixture(scope="session")
def cuda_kernels() -> ModuleType:
    """The CUDA kernels, run by host execution."""
    return load("_kernels_cuda_host")


@pytest.fixture(scope="session", params=BACKENDS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return load(BACKENDS[request.param])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """float16 is not for the CPU's kernels: `ops` casts it."""
    items[:] = [item for item in items if not _is_float16_on_cpu(item)]


def _is_float16_on_cpu(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("dtype") == "float16" and parameters.get("kernels", "cpu") == "cpu"


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh random inputs in every test, the same ones in every run."""
    return np.random.default_rng(20260101)
