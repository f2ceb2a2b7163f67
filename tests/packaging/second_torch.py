# SPDX-License-Identifier: MIT
"""Virtual environments with other torches than the CPU library was built with: the oldest
supported one, and one with the CUDA that the CUDA library is built for.

The torches on the package index are CUDA builds, whose `import torch` wants 3 GB of NVIDIA
libraries that nobody calls without a GPU. They are not installed: empty stand-ins take their place,
libraries of the same names in which every function returns an error. torch finds no GPU and its CPU
half works as ever. The environments are kept between runs.

    python tests/packaging/second_torch.py VERSION      makes one and prints its interpreter
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = "2.10.0"
WITH_CUDA_13 = "2.11.0"
ROOT = Path(__file__).resolve().parents[2]
# What torch imports, without the NVIDIA packages it also asks for.
REQUIREMENTS = ["filelock", "fsspec", "jinja2", "networkx", "sympy", "typing_extensions"]
# What building an extension there takes besides.
BUILD_REQUIREMENTS = ["setuptools>=77,<82", "ninja"]
NVIDIA_LIBRARY = re.compile(r"NEEDED\s+(lib(?:cu|nccl|nvshmem|nvrtc|nvJit|nvToolsExt)\S*)")
VERSION_REFERENCES = re.compile(r"required from (\S+):\n((?:\s+0x.*\n)+)")
NVIDIA_SYMBOL = re.compile(r"_*(?:cu|nccl|nvshmem|nvrtc|nvJit|nvtx)\w*$")


class UnavailableError(Exception):
    """The package index does not hand out this torch."""


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _pip_install(interpreter: Path, *arguments: str) -> None:
    command = [interpreter, "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"pip install {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")


def _nvidia_imports(libraries: list[Path]) -> dict[str, dict[str, set[str]]]:
    """NVIDIA library -> symbol version -> symbols torch takes from it (no version: from any)."""
    imports: dict[str, dict[str, set[str]]] = {}
    library_of_version = {}
    undefined = set()
    for library in libraries:
        headers = _output("objdump", "-p", library)
        for name in NVIDIA_LIBRARY.findall(headers):
            imports.setdefault(name, {})
        for name, versions in VERSION_REFERENCES.findall(headers):
            if name in imports:
                library_of_version.update(
                    dict.fromkeys(re.findall(r"(\S+)$", versions, re.M), name)
                )
        undefined.update(
            line.split()[-1]
            for line in _output("nm", "-D", "--undefined-only", library).splitlines()
        )
    unversioned = set(imports) - set(library_of_version.values())
    for symbol in undefined:
        name, _, version = symbol.partition("@")
        if NVIDIA_SYMBOL.match(name):
            for home in [library_of_version[version]] if version else unversioned:
                imports[home].setdefault(version, set()).add(name)
    return imports


def _make_stand_ins(folder: Path) -> None:
    """Write into torch's library folder one stand-in for each NVIDIA library needed there."""
    source, script = folder / "stand_in.c", folder / "stand_in.map"
    for library, versions in _nvidia_imports(sorted(folder.glob("*.so"))).items():
        # 100 is cudaErrorNoDevice; to every other of these libraries it is some error, too.
        names = sorted(set().union(*versions.values()))
        source.write_text("".join(f"long {name}(void) {{ return 100; }}\n" for name in names))
        nodes = [f"{v} {{ {'; '.join(sorted(versions[v]))}; }};\n" for v in versions if v]
        script.write_text("".join(nodes))
        options = ["-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}"]
        if nodes:
            options.append(f"-Wl,--version-script={script}")
        subprocess.run(["cc", *options, "-o", folder / library, source], check=True)


def interpreter(version: str) -> Path:
    """The Python of the environment with that torch, which is made if it is not there yet.

    Raises:
        UnavailableError: pip cannot install that torch here (no network, or none for this Python).
    """
    environment = ROOT / f".venv-torch-{version}"
    python = environment / "bin" / "python"
    finished = environment / "finished"
    if finished.exists():
        return python
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    _pip_install(python, "--no-deps", f"torch=={version}")
    _pip_install(python, *REQUIREMENTS, *BUILD_REQUIREMENTS)
    find = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    _make_stand_ins(Path(_output(python, "-c", find).strip()) / "lib")
    _output(python, "-c", "import torch; assert torch.ones(2).sum() == 2")
    finished.touch()
    return python


if __name__ == "__main__":
    print(interpreter(sys.argv[1]))
