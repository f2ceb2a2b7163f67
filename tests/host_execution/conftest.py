# SPDX-License-Identifier: MIT
"""The builds of host execution, made once a session and kept: build/host, build/host-asan,
build/host-tsan."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.host_execution import programs

REPORT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    reason = programs.why_not()
    if reason is not None:
        pytest.skip(reason)


# The layer's own tests, and kernel_bench, in each build. Apart, so that a kernel that does not
# compile does not keep the layer from being tested.


@pytest.fixture(scope="session")
def host_test(_machine: None) -> Path:
    return programs.build("host", "host_execution_test")


@pytest.fixture(scope="session")
def asan_test(_machine: None) -> Path:
    return programs.build("host-asan", "host_execution_test", sanitize="address,undefined")


@pytest.fixture(scope="session")
def tsan_test(_machine: None) -> Path:
    return programs.build("host-tsan", "host_execution_test", sanitize="thread")


@pytest.fixture(scope="session")
def host_bench(_machine: None) -> Path:
    return programs.build("host", "kernel_bench-host")


@pytest.fixture(scope="session")
def asan_bench(host_bench: Path) -> Path:
    return programs.build("host-asan", "kernel_bench-host", sanitize="address,undefined")


@pytest.fixture(scope="session")
def tsan_bench(host_bench: Path) -> Path:
    return programs.build("host-tsan", "kernel_bench-host", sanitize="thread")


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs programs side by side, as many as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the session's log."""
    return pytestconfig.stash.setdefault(REPORT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("host execution")
        for line in lines:
            terminalreporter.write_line(line)
