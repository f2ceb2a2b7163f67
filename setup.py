# SPDX-License-Identifier: MIT
"""Builds the C++ library `seq2seq_ext._C` against the LibTorch stable ABI; see pyproject.toml, too.

One wheel (cp310-abi3) serves every Python >= 3.10 and torch >= 2.10, whatever torch it was built
with. The build reads no network and does not depend on the processor it runs on.

Environment: MAX_JOBS limits parallel compilers; SEQ2SEQ_EXT_DEBUG=1 builds with debug information,
less optimised; SEQ2SEQ_EXT_BUILD=0 packages the Python files alone (the library then lies in the
tree already, or is not wanted).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 10)
MIN_GCC = 10  # the first with -std=c++20 and AVX-512 BF16

# Code for newer processors is chosen at run time, so there is no -march here. Contracting a * b + c
# is allowed; nothing that changes what NaN, inf or the order of operations mean is. With these two
# passes -O2 runs as fast as -O3 and compiles in three quarters of the time.
OPTIMISE = ["-O2", "-ftree-vectorize", "-fpeel-loops", "-g0"]
DEBUG = ["-O1", "-fno-omit-frame-pointer", "-g"]
COMMON = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
COMMON += ["-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wall"]
COMMON += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 warns of its own headers


def stop(message):
    """End the build with one sentence instead of a traceback."""
    sys.exit("seq2seq_ext: " + message)


def dotted(version):
    return ".".join(str(part) for part in version)


def listed_sources(pattern):
    """The sources that csrc/sources.txt lists and whose path in csrc/ matches the pattern."""
    lines = (ROOT / "csrc" / "sources.txt").read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    sources = ["csrc/" + name for name in names if re.match(pattern, name)]
    for source in sources:
        if not (ROOT / source).is_file():
            stop("{} is listed in csrc/sources.txt but does not exist.".format(source))
    return sources


def is_set(variable, default):
    return os.environ.get(variable, default) not in ("", "0")


def check_torch():
    """Import torch, or say in one sentence why that cannot be built with."""
    try:
        import torch
    except ImportError as error:
        stop(
            "building needs torch >= {}, which this Python ({}) cannot import ({}); install it "
            "first, or let pip do so by leaving out --no-build-isolation.".format(
                dotted(MIN_TORCH), sys.executable, error
            )
        )
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if found < MIN_TORCH:
        stop("building needs torch >= {}, found {}.".format(dotted(MIN_TORCH), torch.__version__))


def check_compiler():
    """One sentence when there is no usable C++ compiler."""
    compiler = os.environ.get("CXX", "c++").split()
    if not compiler or shutil.which(compiler[0]) is None:
        stop(
            "no C++ compiler found ({}); install one (Debian/Ubuntu: apt install g++) or name one "
            "in the environment variable CXX.".format(" ".join(compiler) or "CXX is empty")
        )
    text = subprocess.run(
        [*compiler, "-dM", "-E", "-x", "c++", os.devnull], stdout=subprocess.PIPE, check=False
    ).stdout.decode()
    macros = dict(re.findall("#define (__clang__|__GNUC__|__VERSION__) (.*)", text))
    if "__clang__" not in macros and int(macros.get("__GNUC__", MIN_GCC)) < MIN_GCC:
        stop("GCC >= {} is needed, found {}.".format(MIN_GCC, macros["__VERSION__"].strip('"')))


def cpu_library():
    """seq2seq_ext._C: the CPU kernels and their bindings."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "seq2seq_ext._C",
        listed_sources("kernels/(common|cpu)/|bindings/(?!cuda_)"),
        include_dirs=[str(ROOT / "csrc" / "kernels")],
        define_macros=[("TORCH_TARGET_VERSION", "0x020a000000000000")],
        extra_compile_args={
            "cxx": COMMON + (DEBUG if is_set("SEQ2SEQ_EXT_DEBUG", "0") else OPTIMISE)
        },
        # Named first: torch's libraries export parts of the C++ runtime, too, to be left alone.
        libraries=["stdc++"],
        depends=[str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.h"))],
        py_limited_api=True,
    )


def build_command():
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def build_extensions(self):
            check_compiler()
            super().build_extensions()

    return Build


def main():
    if sys.version_info < MIN_PYTHON:
        stop(
            "Python >= {} is needed, this is {}.".format(dotted(MIN_PYTHON), sys.version.split()[0])
        )
    from setuptools import setup

    if not is_set("SEQ2SEQ_EXT_BUILD", "1"):
        setup()
        return
    check_torch()
    setup(
        ext_modules=[cpu_library()],
        cmdclass={"build_ext": build_command()},
        options={"bdist_wheel": {"py_limited_api": "cp" + "".join(map(str, MIN_PYTHON))}},
    )


main()
