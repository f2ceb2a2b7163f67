# SPDX-License-Identifier: MIT
"""The torch-free kernels through `_kernels`, the NumPy module that `make kernels` builds.

Every test here runs once per ISA (test_every_isa.py), and once more per ISA under ASan and UBSan
(test_sanitizers.py).
SEQ2SEQ_EXT_KERNELS_DIR names another folder to take the module from.
"""

import importlib
import os
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # oracle.py


@pytest.fixture(scope="session")
def kernels():
    folder = os.environ.get("SEQ2SEQ_EXT_KERNELS_DIR", str(ROOT / "build" / "kernels"))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("_kernels")
    except ModuleNotFoundError:
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            pytest.skip("needs Python's C headers (Debian/Ubuntu: apt install python3-dev)")
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            pytest.skip("the NumPy module of the kernels needs Python's C headers")
        pytest.fail(f"no module _kernels in {folder}; `make kernels` builds it")
    finally:
        sys.path.remove(folder)


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh random inputs in every test, the same ones in every run."""
    return np.random.default_rng(20260101)
