# SPDX-License-Identifier: MIT
"""Every CUDA kernel on the CPU, against the CPU kernels in float64: cases.txt says at what sizes.

Four checks, each of which the others cannot replace: many orders of the threads; ASan + UBSan;
ThreadSanitizer with each CUDA thread a thread; and that every synchronisation is needed, which
leaves out one at a time and asks who objects.
"""

import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host_execution.programs import (
    KERNELS,
    Case,
    Run,
    Site,
    read_cases,
    read_sites,
    run,
    schedules_of,
    written_sites,
)

CASES = read_cases()
SMALL = [case for case in CASES if not case.large]
SMALL_KERNELS = list(dict.fromkeys(case.kernel for case in SMALL))


def by_case(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.text for case in cases])


def collected(request: pytest.FixtureRequest, *tests: str) -> list[Case]:
    """The cases of the tests that this session runs."""
    items = [item for item in request.session.items if getattr(item, "originalname", "") in tests]
    return list(dict.fromkeys(item.callspec.params["case"] for item in items))


# ---- Orders --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def schedule_runs(
    request: pytest.FixtureRequest, host_bench: Path, pool: ThreadPoolExecutor
) -> dict[Case, Future[Run]]:
    return {
        case: pool.submit(run, host_bench, *schedules_of(case))
        for case in collected(request, "test_schedules")
    }


@by_case(CASES)
def test_schedules(case: Case, schedule_runs: dict[Case, Future[Run]]) -> None:
    """First-in and last-in order, ten random ones."""
    done = schedule_runs[case].result()
    assert done.objection() is None, done.output[-6000:]
    assert len(re.findall(r"^took ", done.output, re.MULTILINE)) == 12, done.output[-6000:]
    assert re.search(r"^ok ", done.output, re.MULTILINE), "the case checks nothing"


# ---- ASan + UBSan --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def address_runs(
    request: pytest.FixtureRequest, asan_bench: Path, pool: ThreadPoolExecutor
) -> dict[Case, Future[Run]]:
    schedules = ["sched=lifo", "sched=random sched_seed=1"]
    return {
        case: pool.submit(run, asan_bench, *schedules_of(case, schedules))
        for case in collected(request, "test_addresses")
    }


@pytest.mark.slow
@by_case(CASES)
def test_addresses(case: Case, address_runs: dict[Case, Future[Run]]) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer."""
    done = address_runs[case].result()
    assert done.objection() is None, done.output[-6000:]
    assert len(re.findall(r"^took ", done.output, re.MULTILINE)) == 2, done.output[-6000:]


# ---- ThreadSanitizer -----------------------------------------------------------------------------


@dataclass
class RaceRun:
    """One case's part of the output of a run of many."""

    output: str
    finished: bool

    @property
    def clean(self) -> bool:
        bad = re.search(r"ThreadSanitizer|^FAIL", self.output, re.MULTILINE)
        return self.finished and bad is None

    @property
    def seconds(self) -> float:
        return float(re.findall(r"^took ([\d.]+) s", self.output, re.MULTILINE)[-1])


def run_races(program: Path, cases: list[Case]) -> dict[Case, RaceRun]:
    """All cases in one process: ThreadSanitizer takes long to make its threads, and reuses them."""
    results: dict[Case, RaceRun] = {}
    left = list(cases)
    while left:
        words = " , ".join(case.text for case in left).split()
        done = run(program, *words, SITES="1", SCHED="random")
        # The program repeats a case's words, with a blank after each, and then runs it.
        _, *parts = re.split(
            r"^(?:" + "|".join(re.escape(case.text) for case in left) + r") $",
            done.output,
            flags=re.MULTILINE,
        )
        assert parts, done.output[-6000:]
        for case, part in zip(left, parts, strict=False):
            results[case] = RaceRun(part, re.search("^took ", part, re.MULTILINE) is not None)
        left = left[len(parts) :]  # after a crash, the rest in a new process
    return results


@pytest.fixture(scope="session")
def race_runs(
    request: pytest.FixtureRequest, tsan_bench: Path, pool: ThreadPoolExecutor
) -> dict[Case, RaceRun]:
    cases = collected(request, "test_races")
    names = [getattr(item, "originalname", "") for item in request.session.items]
    if "test_synchronisation" in names:
        cases = SMALL
    groups = 2 * (os.cpu_count() or 1)
    futures = [
        pool.submit(run_races, tsan_bench, cases[i::groups]) for i in range(min(groups, len(cases)))
    ]
    return {case: result for future in futures for case, result in future.result().items()}


@pytest.mark.slow
@by_case(SMALL)
def test_races(case: Case, race_runs: dict[Case, RaceRun]) -> None:
    """Each CUDA thread is a thread of ThreadSanitizer's: a missing barrier is a data race."""
    assert race_runs[case].clean, race_runs[case].output[:12000]


# ---- Mutation ------------------------------------------------------------------------------------


@dataclass
class Verdict:
    objection: str | None
    case: Case | None
    tries: int


def leave_out(site: Site, cases: list[Case], tsan_bench: Path, host_bench: Path) -> Verdict:
    """Runs cases without one synchronisation until one objects, the cheapest first."""
    for tries, case in enumerate(cases, 1):
        words = case.text.split()
        done = run(
            tsan_bench,
            *words,
            timeout=60,
            tsan_options="halt_on_error=1",
            SKIP=site.name,
        )
        if done.objection() is not None:
            return Verdict(done.objection(), case, tries)
    for tries, case in enumerate(cases, len(cases) + 1):
        done = run(host_bench, *schedules_of(case), timeout=60, SKIP=site.name)
        if done.objection() is not None:
            return Verdict(done.objection(), case, tries)
    return Verdict(None, None, 2 * len(cases))


@dataclass
class Mutations:
    reached: dict[Site, list[Case]]
    verdicts: dict[Site, Future[Verdict]]

    def row(self, site: Site) -> str:
        verdict = self.verdicts[site].result()
        case = verdict.case.text if verdict.case else "-"
        return (
            f"{site.name:36s} {site.what:22s} {verdict.objection or 'NOBODY':14s} "
            f"{verdict.tries:3d}  {case:50s}  {site.source()[:60]}"
        )


@pytest.fixture(scope="session")
def mutations(
    race_runs: dict[Case, RaceRun],
    tsan_bench: Path,
    host_bench: Path,
    pool: ThreadPoolExecutor,
    report: list[str],
) -> Mutations:
    clean = [case for case in race_runs if race_runs[case].clean]
    reached: dict[Site, list[Case]] = {}
    for case in sorted(clean, key=lambda case: race_runs[case].seconds):
        for site in read_sites(race_runs[case].output):
            if any(KERNELS.rglob(site.file)):  # kernels of kernel_bench itself are not shipped
                reached.setdefault(site, []).append(case)
    verdicts = {
        site: pool.submit(leave_out, site, reached[site], tsan_bench, host_bench)
        for site in sorted(reached)
    }
    result = Mutations(reached, verdicts)
    table = [
        "Each synchronisation of the CUDA kernels left out in turn: who objected, in how many runs",
        *(result.row(site) for site in sorted(reached)),
    ]
    report += table
    (tsan_bench.parent / "synchronisation.txt").write_text("\n".join(table) + "\n")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("kernel", SMALL_KERNELS)
def test_synchronisation(kernel: str, mutations: Mutations) -> None:
    """A barrier, wait, fence or flag that can be left out is superfluous or untested."""
    own = [
        site
        for site, cases in mutations.reached.items()
        if any(case.kernel == kernel for case in cases)
    ]
    missed = [site for site in own if mutations.verdicts[site].result().objection is None]
    assert not missed, "nobody objects without\n" + "\n".join(mutations.row(s) for s in missed)


@pytest.mark.slow
def test_no_synchronisation_is_overlooked(mutations: Mutations) -> None:
    """One that no small case gets to would not be left out by anyone."""
    written = written_sites()
    assert len(written) > 20
    overlooked = sorted(written - set(mutations.reached))
    assert not overlooked, "no small case in cases.txt gets to\n" + "\n".join(
        f"{site.name} {site.source()}" for site in overlooked
    )
