# SPDX-License-Identifier: MIT
"""Builds the libraries `seq2seq_ext._C` (CPU) and `seq2seq_ext._C_cuda` against the LibTorch stable
ABI; see pyproject.toml, too.

One wheel (cp310-abi3) serves every Python >= 3.10 and torch >= 2.10, whatever torch it was built
with. The CUDA library is built where torch has CUDA and nvcc is found. The build reads no network
and depends neither on the processor nor on the GPU of the machine it runs on.

Environment:
    MAX_JOBS               parallel compilers, at most
    CUDA_HOME              the CUDA toolkit; else that of the nvcc on PATH, else /usr/local/cuda
    TORCH_CUDA_ARCH_LIST   GPU architectures, e.g. "8.0;9.0+PTX"; else those of CUDA_ARCHITECTURES
    FORCE_CUDA=1           no CUDA toolkit, or one that does not fit torch, is an error
    SEQ2SEQ_EXT_CUDA=0     leaves the CUDA library out
    SEQ2SEQ_EXT_BUILD      "cpu", "cuda": that library alone; "0": the Python files alone (libraries
                           then lie in the tree already, or are not wanted)
    SEQ2SEQ_EXT_DEBUG=1    debug information, less optimised
    SEQ2SEQ_EXT_ARCHIVE    a static library to write besides, of the CPU kernels' objects
    SEQ2SEQ_EXT_KERNELS    such a one, to be linked instead of compiling the CPU kernels
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
CUDA_ARCHITECTURES = ["8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]
# For the driver to compile, on 11.0 and on what is newer than all. No time: the same front-end run.
CUDA_PTX = ["9.0", "12.0"]

# Code for newer processors is chosen at run time, so there is no -march here. Contracting a * b + c
# is allowed; nothing that changes what NaN, inf or the order of operations mean is. With these two
# passes -O2 runs as fast as -O3 and compiles in three quarters of the time.
OPTIMISE = ["-O2", "-ftree-vectorize", "-fpeel-loops", "-g0"]
DEBUG = ["-O1", "-fno-omit-frame-pointer", "-g"]
COMMON = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
COMMON += ["-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wall"]
COMMON += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 warns of its own headers
CPU_KERNELS = "kernels/(common|cpu)/"
NVCC = ["-O3", "-std=c++17", "-Xcompiler=-fvisibility=hidden,-fvisibility-inlines-hidden,-g0"]
# torch takes the 16-bit types' constructors and operators away; the kernels use them.
NVCC += ["-U__CUDA_NO_{}__".format(what) for what in ("HALF_CONVERSIONS", "HALF_OPERATORS")]
NVCC += ["-U__CUDA_NO_{}__".format(what) for what in ("BFLOAT16_CONVERSIONS", "HALF2_OPERATORS")]


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


def optimisation():
    return DEBUG if is_set("SEQ2SEQ_EXT_DEBUG", "0") else OPTIMISE


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


def nvcc_says(nvcc, *options):
    done = subprocess.run([str(nvcc), *options], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def cuda_homes():
    """Where a CUDA toolkit may be, best first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc:  # may be a link or a script in another folder: ask it
        for top in re.findall(
            "TOP=(.+)", nvcc_says(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull)
        ):
            yield Path(top.strip()).resolve()
    yield Path("/usr/local/cuda")


def find_cuda():
    """(the CUDA toolkit's folder, None) or (None, why the CUDA library cannot be built)."""
    import torch

    if torch.version.cuda is None:
        return None, "torch {} has no CUDA".format(torch.__version__)
    needed = ("bin/nvcc", "include/cuda_runtime.h")
    found = [home for home in cuda_homes() if all((home / name).is_file() for name in needed)]
    if not found:
        return None, "no CUDA toolkit found (nvcc and its headers); name one in CUDA_HOME"
    home = found[0]
    release = re.findall(r"release ([0-9.]+)", nvcc_says(home / "bin" / "nvcc", "--version"))
    if [r.split(".")[0] for r in release] != [torch.version.cuda.split(".")[0]]:
        text = "torch {} is built with CUDA {}, the toolkit in {} is CUDA {}"
        return None, text.format(torch.__version__, torch.version.cuda, home, " ".join(release))
    return home, None


def architecture_flags(home):
    """nvcc's options for the default architectures. None where TORCH_CUDA_ARCH_LIST is set: torch
    turns that into options (and would, without either, take those of the GPUs in this machine)."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return []
    known = nvcc_says(home / "bin" / "nvcc", "--list-gpu-arch").split()
    pairs = [
        (number, kind + "_" + number)
        for kind, names in (("sm", CUDA_ARCHITECTURES), ("compute", CUDA_PTX))
        for number in (name.replace(".", "") for name in names)
        if "compute_" + number in known
    ]
    return ["-gencode=arch=compute_{},code={}".format(*pair) for pair in pairs]


def common_options():
    """What both libraries are built with."""
    suffixes = (".h", ".cuh")
    headers = [path for path in sorted((ROOT / "csrc").rglob("*")) if path.suffix in suffixes]
    return {
        "include_dirs": [str(ROOT / "csrc" / "kernels")],
        "define_macros": [("TORCH_TARGET_VERSION", "0x020a000000000000")],
        # Named first: torch's libraries export parts of the C++ runtime, too, to be left alone.
        "libraries": ["stdc++"],
        "depends": [str(path.relative_to(ROOT)) for path in headers],
        "py_limited_api": True,
    }


def cpu_library():
    """seq2seq_ext._C: the schemas of all ops, the CPU kernels and their bindings."""
    from torch.utils.cpp_extension import CppExtension

    compiled = os.environ.get("SEQ2SEQ_EXT_KERNELS")
    kernels = [] if compiled else listed_sources(CPU_KERNELS)
    return CppExtension(
        "seq2seq_ext._C",
        kernels + listed_sources("bindings/(?!cuda_|host_)"),
        extra_compile_args={"cxx": COMMON + optimisation()},
        extra_objects=[compiled] if compiled else [],
        **common_options(),
    )


def cuda_library(home):
    """seq2seq_ext._C_cuda: the CUDA kernels and their bindings, for the ops that _C defines."""
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(home)
    options = common_options()
    options["define_macros"].append(("USE_CUDA", None))  # torch's headers: the shims for CUDA
    library = cpp_extension.CUDAExtension(
        "seq2seq_ext._C_cuda",
        listed_sources("kernels/(common|cuda)/|bindings/(?!cpu_|host_|library)"),
        extra_compile_args={
            "cxx": COMMON + optimisation(),
            "nvcc": [*NVCC, *architecture_flags(home)],
        },
        # The CUDA runtime is linked in, so that no other one has to be found; nobody sees it.
        extra_link_args=["-Wl,--exclude-libs,ALL"],
        **options,
    )
    place = library.libraries.index("cudart")
    library.libraries[place : place + 1] = ["cudart_static", "rt", "pthread", "dl"]
    return library


def libraries():
    """The libraries to build, as the environment asks for them."""
    wanted = os.environ.get("SEQ2SEQ_EXT_BUILD") or "cpu,cuda"
    found = [cpu_library()] if "cpu" in wanted else []
    if "cuda" in wanted and is_set("SEQ2SEQ_EXT_CUDA", "1"):
        home, problem = find_cuda()
        if home:
            found.append(cuda_library(home))
        elif is_set("FORCE_CUDA", "0") or wanted == "cuda":
            stop("the CUDA library cannot be built: {}.".format(problem))
        else:
            print("seq2seq_ext: the CUDA library is left out: {}.".format(problem))
    return found


def build_command():
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def build_extensions(self):
            check_compiler()
            super().build_extensions()

        def build_extension(self, ext):
            # Both libraries compile the bindings, each with options of its own.
            shared, archive = self.build_temp, os.environ.get("SEQ2SEQ_EXT_ARCHIVE")
            self.build_temp = os.path.join(shared, ext.name)
            wanted = archive and ext.name == "seq2seq_ext._C"
            self.force = self.force or (wanted and not os.path.exists(archive))
            super().build_extension(ext)
            if wanted:
                self.write_archive(archive)
            self.build_temp = shared

        def write_archive(self, archive):
            sources = listed_sources(CPU_KERNELS)
            objects = self.compiler.object_filenames(sources, output_dir=self.build_temp)
            Path(archive).unlink(missing_ok=True)
            subprocess.run(["ar", "qcs", archive, *objects], check=True)

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
        ext_modules=libraries(),
        cmdclass={"build_ext": build_command()},
        options={"bdist_wheel": {"py_limited_api": "cp" + "".join(map(str, MIN_PYTHON))}},
    )


main()
