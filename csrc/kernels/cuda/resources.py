# SPDX-License-Identifier: MIT
"""What ptxas says of each CUDA kernel: registers, spills, shared memory, stack. Needs no GPU.

PYTORCH_NVCC="python csrc/kernels/cuda/resources.py nvcc" python setup.py build_ext ...
    builds as ever and leaves ptxas' words beside each object, in <object>.resources
python csrc/kernels/cuda/resources.py report FOLDER
    prints a line for each kernel found there and exits with 1 if one is over its limit
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".resources"
# Registers a thread, by the name of the kernel; 64 Ki of them, in eights, are a multiprocessor's.
BUDGETS = {
    # One block on a multiprocessor: it holds the weights. ptxas gives no more and spills instead.
    "shared_forward_kernel": 255,
    "shared_backward_kernel": 255,
    "whole_forward_kernel": 255,
    "whole_backward_kernel": 255,
    # A large tile's sums beside two blocks of 128 threads, or one of 256; near 255 it would spill.
    "gemm_kernel": 240,
    "logit_sums_kernel": 240,
    "vocab_kernel": 240,
    # Three blocks of 128 threads hide each other's reads of the weights.
    "logit_gradients_kernel": 168,
    "rows_product_kernel": 168,
    "step_kernel": 168,
}
BUDGET = 80  # of all others: three blocks of 256 threads


@dataclass(frozen=True)
class Usage:
    kernel: str
    arch: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int

    @property
    def budget(self) -> int:
        name = self.kernel.split("<")[0].split("::")[-1]
        return BUDGETS.get(name, BUDGET)

    def problem(self) -> str | None:
        if self.spill_bytes:
            return f"spills {self.spill_bytes} bytes"
        if self.registers > self.budget:
            return f"{self.registers} registers, its budget is {self.budget}"
        return None

    def __str__(self) -> str:
        numbers = f"{self.registers:4} {self.spill_bytes:6} {self.stack_bytes:6}"
        return f"{self.arch} {numbers} {self.shared_bytes:7}  {self.kernel}"


HEADER = "arch  regs spills  stack  shared  kernel"
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def parse(text: str) -> list[Usage]:
    """ptxas -v's words -> a line for each kernel, named as the compiler mangles it."""
    found = []
    for part in re.split(r"(?=ptxas info\s+: Compiling entry)", text):
        entry, frame, used = _ENTRY.search(part), _FRAME.search(part), _USED.search(part)
        if entry and frame and used:
            shared = _SHARED.search(part)
            stack, stores, loads = (int(number) for number in frame.groups())
            shared_bytes = int(shared.group(1)) if shared else 0
            registers = int(used.group(1))
            found.append(Usage(*entry.groups(), registers, stores + loads, stack, shared_bytes))
    return found


def demangled(usages: list[Usage]) -> list[Usage]:
    names = "\n".join(usage.kernel for usage in usages)
    done = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True)
    return [
        Usage(_short(name), *list(vars(usage).values())[1:])
        for usage, name in zip(usages, done.stdout.splitlines(), strict=True)
    ]


def _short(name: str) -> str:
    name = re.sub(r"seq2seq_ext::kernels::(cuda::)?|\(anonymous namespace\)::|^void ", "", name)
    return name[: name.rindex("(")] if name.endswith(")") else name


def collect(folder: Path) -> list[Usage]:
    """Of every kernel built in the folder, sorted by name."""
    found: list[Usage] = []
    for path in sorted(folder.rglob("*" + SUFFIX)):
        found += parse(path.read_text())
    return sorted(demangled(found), key=lambda usage: (usage.kernel, usage.arch))


def report(usages: list[Usage]) -> str:
    return "\n".join([HEADER, *map(str, usages)]) + "\n"


def problems(usages: list[Usage]) -> list[str]:
    return [f"{u.kernel} ({u.arch}): {problem}" for u in usages if (problem := u.problem())]


def run_nvcc(arguments: list[str]) -> int:
    home = os.environ.get("CUDA_HOME")
    nvcc = str(Path(home, "bin", "nvcc")) if home else shutil.which("nvcc")
    done = subprocess.run([nvcc or "nvcc", "--resource-usage", *arguments], stderr=subprocess.PIPE)
    text = done.stderr.decode(errors="replace")
    if "-o" in arguments and done.returncode == 0:
        Path(arguments[arguments.index("-o") + 1] + SUFFIX).write_text(text)
    sys.stderr.write(re.sub(r"(?m)^ptxas info.*\n|^\s+\d+ bytes stack frame.*\n", "", text))
    return done.returncode


def main() -> int:
    match sys.argv[1:]:
        case ["nvcc", *arguments]:
            return run_nvcc(arguments)
        case ["report", folder]:
            usages = collect(Path(folder))
            sys.stdout.write(report(usages))
            for problem in problems(usages):
                print(problem, file=sys.stderr)
            return 1 if problems(usages) or not usages else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
