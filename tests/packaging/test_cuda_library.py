# SPDX-License-Identifier: MIT
"""The CUDA library without a GPU: every kernel compiled for sm_80 and sm_90, none of them spilling
or over its budget of registers; the library linked against a torch with CUDA, imported there, its
ops registered."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging import second_torch

ROOT = Path(__file__).resolve().parents[2]
RESOURCES = ROOT / "csrc" / "kernels" / "cuda" / "resources.py"
ARCHITECTURES = ("sm_80", "sm_90")
KERNELS = (
    *("shared_forward_kernel", "shared_backward_kernel", "whole_forward_kernel", "gates_kernel"),
    *("step_kernel", "vocab_kernel", "attention_kernel", "gemm_kernel", "logit_sums_kernel"),
    *("decode_gather_kernel", "decode_pick_kernel", "decode_draw_kernel", "decode_beam_kernel"),
    "decode_condition_kernel",
)
OPS = (
    *(f"{cell}_sequence{part}" for cell in ("lstm", "gru", "rnn") for part in ("", "_backward")),
    *("lstm_step", "gru_step", "rnn_step", "attention_step", "vocab_pick", "vocab_sample"),
    *("linear_cross_entropy", "linear_cross_entropy_backward", "decode"),
)

IMPORTED = """
import json, sys, warnings
warnings.simplefilter("ignore")  # this environment has no NumPy, and torch says so
import torch, seq2seq_ext
has = torch._C._dispatch_has_kernel_for_dispatch_key
plan = seq2seq_ext.plan_sequence("lstm", 1024, 16, 768, device=(90, 132))
print(json.dumps({
    "cuda": torch.version.cuda,
    "backend": seq2seq_ext.backend_info()["cuda"],
    "ops": {name: has("seq2seq_ext::" + name, "CUDA") for name in sys.argv[1:]},
    "plan": plan["kernel"],
    "small": seq2seq_ext.plan_sequence("lstm", 1024, 16, 768, device=(90, 4)),
    "cpu": seq2seq_ext.ops.vocab_pick(torch.ones(1, 3), torch.eye(3))[1].tolist(),
}))
"""


@pytest.fixture(scope="module")
def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("needs nvcc")
    return found


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return second_torch.interpreter(second_torch.WITH_CUDA_13)
    except second_torch.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def built(nvcc: str, python: Path) -> Path:
    """The folder that `_C_cuda` was built into; ninja recompiles what changed."""
    folder = ROOT / "build" / "cuda"
    environment = os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "SEQ2SEQ_EXT_BUILD": "cuda",
        "TORCH_CUDA_ARCH_LIST": "8.0;9.0",
        "PYTORCH_NVCC": f"{sys.executable} {RESOURCES} nvcc",
    }
    command = [python, "setup.py", "-q", "build_ext", f"--build-lib={folder / 'lib'}"]
    done = subprocess.run(
        [*command, f"--build-temp={folder / 'temp'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-6000:]
    return folder


# ptxas' words of one kernel.
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{name}' for 'sm_90'
ptxas info    : Function properties for {name}
    0 bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 9216 bytes smem
"""
GATES_KERNEL = "_ZN11seq2seq_ext7kernels4cuda12gates_kernelIfEEvi"  # gates_kernel<float>(int)
STEP_KERNEL = "_ZN11seq2seq_ext7kernels4cuda11step_kernelIfEEvi"
WHOLE_KERNEL = "_ZN11seq2seq_ext7kernels4cuda10persistent20whole_forward_kernelIfEEvi"


@pytest.mark.parametrize(
    ("name", "registers", "spilled", "problem"),
    [
        (GATES_KERNEL, 80, 0, None),
        (GATES_KERNEL, 81, 0, "gates_kernel<float> (sm_90): 81 registers, its budget is 80"),
        (GATES_KERNEL, 32, 8, "gates_kernel<float> (sm_90): spills 16 bytes"),
        (STEP_KERNEL, 168, 0, None),
        (STEP_KERNEL, 170, 0, "step_kernel<float> (sm_90): 170 registers, its budget is 168"),
        (WHOLE_KERNEL, 255, 0, None),
    ],
)
def test_a_kernel_over_its_budget_fails(tmp_path: Path, name, registers, spilled, problem):
    words = PTXAS.format(name=name, registers=registers, spilled=spilled)
    (tmp_path / "x.o.resources").write_text(words)
    done = subprocess.run(
        [sys.executable, RESOURCES, "report", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == ((1, problem + "\n") if problem else (0, ""))
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_no_kernel_spills_or_passes_its_budget(built: Path):
    done = subprocess.run(
        [sys.executable, RESOURCES, "report", built / "temp"],
        capture_output=True,
        text=True,
        check=False,
    )
    (built / "resource_usage.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    for arch in ARCHITECTURES:
        own = [line for line in lines if line.startswith(arch)]
        for kernel in KERNELS:
            assert any(kernel in line for line in own), (arch, kernel)


@pytest.mark.slow
def test_import_without_a_gpu(built: Path, python: Path, installed: Path, tmp_path: Path):
    """The wheel's own CPU library beside it, which another torch built."""
    shutil.copytree(installed / "seq2seq_ext", tmp_path / "seq2seq_ext")
    (library,) = (built / "lib").rglob("_C_cuda*.so")
    shutil.copy(library, tmp_path / "seq2seq_ext" / "_C_cuda.abi3.so")
    done = subprocess.run(
        [python, "-c", IMPORTED, *OPS],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cuda"].startswith("13.")
    assert all(found["ops"].values()), found["ops"]
    assert found["cpu"] == [[0]]
    assert found["plan"] == "persistent"
    assert found["small"]["kernel"] == "stepwise"
    assert found["small"]["reason"]
