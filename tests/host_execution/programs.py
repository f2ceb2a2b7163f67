# SPDX-License-Identifier: MIT
"""The programs of the host execution builds: how they are built, run and read."""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CASES = Path(__file__).parent / "cases.txt"
KERNELS = ROOT / "csrc" / "kernels" / "cuda"
LAYER = ROOT / "csrc" / "host_execution"

# Of a sanitizer's report. 66 and not 1: the latter is a program's own "wrong result".
SANITIZER_EXIT = 66
ENVIRONMENT = {
    "ASAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:detect_leaks=1",
    "UBSAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:print_stacktrace=1:halt_on_error=1",
}
TSAN_OPTIONS = f"exitcode={SANITIZER_EXIT}:atexit_sleep_ms=0"


def why_not() -> str | None:
    """Why this machine cannot run kernels on the CPU; None: it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "host execution is tested on Linux x86-64"
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler})"
    return None


def build(name: str, target: str, sanitize: str = "") -> Path:
    """Configures build/<name> if need be and makes one program; returns its path."""
    folder = BUILD / name
    options = [
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DSEQ2SEQ_EXT_PYTHON=OFF",
        "-DSEQ2SEQ_EXT_HOST_EXECUTION=ON",
    ]
    # The CPU kernels to compare with, of the library in the tree; else the plain build makes them.
    archive = BUILD / "kernels.a"
    if sanitize and not archive.exists():
        archive = BUILD / "host" / "libseq2seq_ext_kernels.a"
    if sanitize or archive.exists():
        options.append(f"-DSEQ2SEQ_EXT_ARCHIVE={archive}")
    if sanitize:
        options.append(f"-DSEQ2SEQ_EXT_SANITIZE={sanitize}")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:  # another process may want another program of these
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            _checked(["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options])
        _checked(["cmake", "--build", str(folder), "--target", target])
    return folder / target


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=_path())
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"


def _path() -> dict[str, str]:
    """cmake and ninja of the environment that runs the tests go first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


# ---- Runs ----------------------------------------------------------------------------------------


@dataclass
class Run:
    returncode: int
    output: str  # both streams, in order
    seconds: float

    def objection(self) -> str | None:
        """What is wrong with the run, in a word or two; None: nothing."""
        if self.returncode == 0:
            return None
        for pattern, word in (
            (r"ThreadSanitizer: data race", "race"),
            (r"(?:Address|Thread)Sanitizer: ([\w-]+)", r"\1"),
            (r"runtime error", "undefined behaviour"),
            (r"host execution:.*?: (deadlock|livelock|divergent \w+)", r"\1"),
            (r"host execution: .*", "report"),
            (r"^FAIL", "wrong result"),
        ):
            found = re.search(pattern, self.output, re.MULTILINE)
            if found:
                return found.expand(word)
        return "hangs" if self.returncode == TIMED_OUT else f"exit status {self.returncode}"


TIMED_OUT = -1000


def run(
    program: Path, *words: str, timeout: float = 300, tsan_options: str = "", **options: str
) -> Run:
    """Runs a program; options are HOST_EXECUTION_<name>."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HOST_EXECUTION_")}
    environment |= ENVIRONMENT
    environment["TSAN_OPTIONS"] = f"{TSAN_OPTIONS}:{tsan_options}"
    environment |= {f"HOST_EXECUTION_{name}": value for name, value in options.items()}
    command = [str(program), *words]
    if "tsan" in program.parent.name and _can_fix_addresses():
        command = ["setarch", "-R", *command]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=timeout,
        )
        returncode, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        returncode, output = TIMED_OUT, expired.stdout or b""
    return Run(returncode, output.decode(errors="replace"), time.monotonic() - start)


_fixes_addresses: bool | None = None


def _can_fix_addresses() -> bool:
    """ThreadSanitizer of GCC stops where the kernel randomises addresses widely."""
    global _fixes_addresses
    if _fixes_addresses is None:
        _fixes_addresses = (
            shutil.which("setarch") is not None
            and subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0
        )
    return _fixes_addresses


# ---- Cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    text: str
    large: bool

    @property
    def kernel(self) -> str:
        return self.text.split()[0]


def read_cases(path: Path = CASES) -> list[Case]:
    cases = []
    for line in path.read_text().splitlines():
        text = line.split("#")[0].strip()
        if text:
            large = text.startswith("large:")
            cases.append(Case(text.removeprefix("large:").strip(), large))
    twice = {case.text for case in cases if [c.text for c in cases].count(case.text) > 1}
    assert not twice, f"{path.name} has these twice: {twice}"
    return cases


SCHEDULES = ["sched=fifo", "sched=lifo"] + [f"sched=random sched_seed={i}" for i in range(1, 11)]


def schedules_of(case: Case, schedules: list[str] = SCHEDULES) -> list[str]:
    """The words that make kernel_bench-host run a case in each schedule, in one process."""
    words: list[str] = []
    for schedule in schedules:
        words += [*([","] if words else []), *case.text.split(), *schedule.split()]
    return words


# ---- Synchronisation sites -----------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Site:
    file: str
    line: int
    what: str = field(compare=False)

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}"

    def source(self) -> str:
        paths = list(KERNELS.rglob(self.file)) or list(LAYER.rglob(self.file))
        return paths[0].read_text().splitlines()[self.line - 1].strip()


SYNCHRONISES = re.compile(
    r"\b(__syncthreads\w*|__syncwarp|cp_async_wait|ld_acquire|st_release|red_release"
    r"|atomic_add_acq_rel|named_barrier_\w+|mbar_wait|sync)(?:<[^;]*>)?\("
)


def written_sites() -> set[Site]:
    """Every synchronisation in the sources of the kernels, whether or not a case gets there."""
    return {
        Site(path.name, number, found[1])
        for path in KERNELS.rglob("*.cu*")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in SYNCHRONISES.finditer(line.split("//")[0])
    }


def read_sites(output: str) -> set[Site]:
    """The sites that runs with HOST_EXECUTION_SITES list."""
    found = re.findall(r"^site ([^:\s]+):(\d+) \d+ (.*)$", output, re.MULTILINE)
    return {Site(file, int(line), what) for file, line, what in found}
