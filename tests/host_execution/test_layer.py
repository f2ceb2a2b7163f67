# SPDX-License-Identifier: MIT
"""The layer that runs kernels on the CPU: its own tests (csrc/host_execution/tests), and what the
sanitizers see through it."""

import re
from pathlib import Path

import pytest

from tests.host_execution.programs import (
    LAYER,
    SANITIZER_EXIT,
    build,
    read_sites,
    run,
)


def registered(word: str) -> list[str]:
    sources = sorted((LAYER / "tests").glob("*.cpp"))
    return [
        name
        for path in sources
        for name in re.findall(rf"^{word}\((\w+)\)", path.read_text(), re.M)
    ]


TESTS = registered("LAYER_TEST")


# ---- The layer's own tests -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TESTS)
def test_in_every_schedule(name: str, host_test: Path) -> None:
    done = run(host_test, "--schedules", name)
    assert done.returncode == 0, done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_under_address_sanitizer(name: str, asan_test: Path) -> None:
    done = run(asan_test, name)
    assert done.returncode == 0, done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_under_thread_sanitizer(name: str, tsan_test: Path) -> None:
    done = run(tsan_test, name)
    assert done.returncode == 0, done.output


def test_same_seed_same_run(host_test: Path) -> None:
    """And the environment's options are taken, or refused."""
    first, again, other = (
        run(host_test, "cooperative_grid", SCHED="random", SEED=seed) for seed in "778"
    )
    assert first.output == again.output == other.output
    refused = run(host_test, "cooperative_grid", SCHED="best")
    assert refused.returncode == 2
    assert "HOST_EXECUTION_SCHED=best: expected fifo, lifo or random" in refused.output


# ---- Faults that a build has to see, and no fault where there is none ----------------------------

ADDRESS_FAULTS = {
    "static_overflow": r"heap-buffer-overflow.*faults\.cpp:\d+ in past_static_array",
    "static_underflow": r"use-after-poison.*in before_static_array",
    "dynamic_overflow": r"heap-buffer-overflow.*in into_next_piece",
    "global_overflow": r"heap-buffer-overflow.*in past_global",
    "misaligned_vector": r"store to misaligned address .* for type 'struct float4'",
    "misaligned_piece": r"store to misaligned address .* for type 'struct float4'",
    "shared_after_its_block": r"heap-use-after-free.*in after_its_block",
    "stack_overflow": r"stack-overflow.*in uses_much_stack",
}
RACE_FAULTS = {
    "lost_update": r"data race.*in lost_update",
    "warp_exchange": r"data race.*in warp_exchange",
    "copy_overwrites": r"data race.*in copy_overwrites",
    "publish": r"data race.*in publish",
}
CRASHES = {
    "misaligned_vector": r"vector_store block \(0,0,0\) thread \(0,0,0\): misaligned vector access",
    "stack_overflow": r"uses_much_stack .*: stack overflow; HOST_EXECUTION_STACK=<KiB> gives more",
    "past_carver": r"past_the_carver .*: access to dynamic shared memory past gpu::Carver",
}


def test_every_fault_is_somebodys() -> None:
    assert {*ADDRESS_FAULTS, *RACE_FAULTS, *CRASHES, "sites"} == set(registered("LAYER_FAULT"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ADDRESS_FAULTS)
def test_address_sanitizer_sees(name: str, asan_test: Path) -> None:
    right = run(asan_test, "--fault", name, "right")
    assert right.returncode == 0, right.output
    wrong = run(asan_test, "--fault", name, "wrong")
    assert wrong.returncode == SANITIZER_EXIT
    assert re.search(ADDRESS_FAULTS[name], wrong.output), wrong.output


@pytest.mark.slow
@pytest.mark.parametrize("name", RACE_FAULTS)
def test_thread_sanitizer_sees(name: str, tsan_test: Path) -> None:
    right = run(tsan_test, "--fault", name, "right")
    assert right.returncode == 0, right.output
    wrong = run(tsan_test, "--fault", name, "wrong")
    assert wrong.returncode == SANITIZER_EXIT
    assert re.search(RACE_FAULTS[name], wrong.output), wrong.output


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_names_its_thread(name: str, host_test: Path) -> None:
    right = run(host_test, "--fault", name, "right")
    assert right.returncode == 0, right.output
    wrong = run(host_test, "--fault", name, "wrong")
    assert wrong.returncode < 0
    assert re.search(CRASHES[name], wrong.output), wrong.output


def test_more_stack_on_request(host_test: Path) -> None:
    done = run(host_test, "--fault", "stack_overflow", "wrong", STACK="2048")
    assert done.returncode == 0, done.output


# ---- Sites, and runs without one -----------------------------------------------------------------


def test_sites_are_listed_and_can_be_left_out(host_test: Path) -> None:
    done = run(host_test, "--fault", "sites", "right", SITES="1")
    sites = read_sites(done.output)
    assert [site.what for site in sorted(sites)] == [
        "cp_async_wait",
        "__syncthreads",
        "__syncthreads",
        "__syncwarp",
        "named_barrier_sync",
        "__syncthreads",
        "__syncthreads",
        "red_release",
        "ld_acquire",
    ]
    for site in sites:
        assert site.what in site.source()
    # Without all of them, only the flags are left to meet by.
    left_out = ",".join(site.name for site in sites)
    without = run(host_test, "--fault", "sites", "right", SKIP=left_out)
    assert without.returncode == 1


@pytest.mark.slow
def test_thread_sanitizer_misses_all_but_the_superfluous(tsan_test: Path) -> None:
    """The barrier after which nothing is read, and the flag that brings nothing."""
    listed = run(tsan_test, "--fault", "sites", "right", SITES="1")
    assert listed.returncode == 0, listed.output
    unmissed = [
        site.source()
        for site in sorted(read_sites(listed.output))
        if run(tsan_test, "--fault", "sites", "right", SKIP=site.name).returncode == 0
    ]
    assert len(unmissed) == 3
    assert "superfluous" in unmissed[0]
    assert "red_release" in unmissed[1]
    assert "ld_acquire" in unmissed[2]


# ---- The preempting build ------------------------------------------------------------------------


@pytest.mark.slow
def test_preempting_build_loses_updates(host_test: Path) -> None:
    """Threads that switch only where they meet add up correctly without an atomic."""
    program = build(host_test.parent.name, "host_execution_test-preempt")
    assert run(program, "--fault", "lost_update", "wrong").returncode == 0
    assert run(program, "--fault", "lost_update", "wrong", PREEMPT="2").returncode == 1
    assert run(program, "--fault", "lost_update", "right", PREEMPT="2").returncode == 0
    done = run(program, PREEMPT="5")
    assert done.returncode == 0, done.output
