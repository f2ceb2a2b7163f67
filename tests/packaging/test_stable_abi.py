# SPDX-License-Identifier: MIT
"""The wheel's promise: built once, it runs with every torch >= 2.10: it calls only C shims."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.packaging import second_torch

ROOT = Path(__file__).resolve().parents[2]
TORCH_SHIM = re.compile(r"(aoti_torch|torch)_[a-z0-9_]+$")
# Symbols of the C and C++ runtimes carry a version; these come without one.
RUNTIME = {
    "__cxa_finalize",
    "__gmon_start__",
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
}

ONE_OP = """
import json, sys, warnings
warnings.simplefilter("ignore")  # this environment has no NumPy, and torch says so
import torch, seq2seq_ext
from seq2seq_ext import ops
torch.manual_seed(0)
def leaf(*shape):
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).requires_grad_()
x, h0, c0 = leaf(5, 3, 6), leaf(1, 3, 4), leaf(1, 3, 4)
weights = [leaf(16, 6), leaf(16, 4), leaf(16), leaf(16)]
y, h_n, c_n = ops.lstm_sequence(x, h0, c0, weights)
(y.square().sum() + c_n.sum()).backward()
log_probs, picks = ops.vocab_pick(y[-1].detach(), leaf(9, 4).detach(), k=2)
print(json.dumps({
    "torch": torch.__version__, "file": seq2seq_ext.__file__,
    "cpu": seq2seq_ext.backend_info()["cpu"],
    "y": y.flatten().tolist(), "dx": x.grad.flatten().tolist(), "picks": picks.tolist(),
}))
"""


def _run_one_op(python: Path | str, installed: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(installed), "SEQ2SEQ_EXT_STRICT": "1"}
    done = subprocess.run(
        [python, "-c", ONE_OP],
        env=environment,
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _dynamic_symbols(library: Path, which: str) -> list[str]:
    command = ["nm", "--dynamic", which, str(library)]
    lines = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def test_library_takes_only_shims_from_torch(installed: Path):
    symbols = _dynamic_symbols(installed / "seq2seq_ext" / "_C.abi3.so", "--undefined-only")
    others = [name for name in symbols if "@" not in name and name not in RUNTIME]
    assert [name for name in others if TORCH_SHIM.match(name)], "the library calls torch somehow"
    assert [name for name in others if not TORCH_SHIM.match(name)] == []


def test_library_gives_nothing_away(installed: Path):
    """No symbol of ours can clash with, or replace, another library's of the same name."""
    symbols = _dynamic_symbols(installed / "seq2seq_ext" / "_C.abi3.so", "--defined-only")
    ours = [name for name in symbols if "seq2seq_ext" in name]
    assert ours == []


def test_library_needs_no_other_libraries(installed: Path):
    library = installed / "seq2seq_ext" / "_C.abi3.so"
    headers = subprocess.run(
        ["objdump", "-p", library], check=True, stdout=subprocess.PIPE, text=True
    )
    needed = set(re.findall(r"NEEDED\s+(\S+)", headers.stdout))
    assert {name.split(".so")[0] for name in needed} <= {
        *("libc10", "libtorch", "libtorch_cpu"),
        *("libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-x86-64"),
    }


def test_kernels_and_their_module_include_no_torch():
    include = re.compile(r'^\s*#\s*include\s*[<"](torch|ATen|c10|caffe2|Python\.h|pybind11)', re.M)
    kernels = [p for p in (ROOT / "csrc" / "kernels").rglob("*") if p.suffix in {".h", ".cpp"}]
    assert kernels
    assert [str(path) for path in kernels if include.search(path.read_text())] == []
    module = [
        p for p in (ROOT / "csrc" / "kernels_python").rglob("*") if p.suffix in {".h", ".cpp"}
    ]
    assert [
        str(path) for path in module if re.search(r"#\s*include\s*[<\"]torch", path.read_text())
    ] == []


def test_runs_under_the_oldest_supported_torch(installed: Path):
    try:
        python = second_torch.interpreter(second_torch.OLDEST)
    except second_torch.UnavailableError as error:
        pytest.skip(f"torch {second_torch.OLDEST} cannot be installed here: {error}")
    here = _run_one_op(sys.executable, installed)
    there = _run_one_op(python, installed)
    assert here["torch"] == torch.__version__
    assert there["torch"].startswith(second_torch.OLDEST)
    assert there["file"].startswith(str(installed))
    assert there["cpu"]["available"]
    # Not bit for bit: the large products are the other torch's BLAS.
    torch.testing.assert_close(there["y"], here["y"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there["dx"], here["dx"], rtol=1e-5, atol=1e-6)
    assert there["picks"] == here["picks"]
