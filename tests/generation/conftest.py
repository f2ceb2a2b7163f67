# SPDX-License-Identifier: MIT
"""What decodes: the loop in C++ or the one in Python. Both are held to the same tests."""

import contextlib

import pytest

from seq2seq_ext import backend_info
from seq2seq_ext.generation import native

# These look at parts of the loop in Python, or at what the loop in C++ leaves to it.
ONCE = {"test_config", "test_processors", "test_proposals"}
ONCE |= {
    "test_native",
    "test_native_words",
    "test_native_ensemble",
    "test_native_limits",
    "test_native_threads",
    "test_decode_op",
    "test_near_ties",
    "test_prepared",
    "test_support",
}


def pytest_generate_tests(metafunc):
    if "loop" in metafunc.fixturenames:
        once = metafunc.module.__name__.rpartition(".")[2] in ONCE
        metafunc.parametrize("loop", ["native"] if once else ["native", "python"], indirect=True)


@pytest.fixture(autouse=True)
def loop(request):
    if request.param == "native" and not backend_info()["cpu"]["available"]:
        pytest.skip("needs the CPU library")
    with native.disabled() if request.param == "python" else contextlib.nullcontext():
        yield request.param
