# SPDX-License-Identifier: MIT
"""A machine that cannot build gets one sentence that says what is missing, not a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run_setup(*, code: str = "", environment: dict[str, str] | None = None) -> str:
    """What a failing `setup.py build_ext` says, after `code` has prepared its interpreter."""
    program = f"""
import runpy, sys
{code}
sys.argv = ["setup.py", "-q", "build_ext", "--build-temp", "/nowhere", "--build-lib", "/nowhere"]
runpy.run_path("setup.py", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.strip()


def _one_sentence(text: str) -> bool:
    return text.startswith("seq2seq_ext: ") and "\n" not in text


@pytest.mark.parametrize("compiler", ["no-such-compiler -O2", ""])
def test_missing_compiler(compiler: str):
    text = _run_setup(environment={"CXX": compiler})
    assert _one_sentence(text), text
    assert "no C++ compiler found" in text
    assert "apt install g++" in text


def test_old_compiler(tmp_path: Path):
    compiler = tmp_path / "old-c++"
    compiler.write_text(
        '#!/bin/sh\necho "#define __GNUC__ 8"\necho "#define __VERSION__ \\"8.3\\""\n'
    )
    compiler.chmod(0o755)
    text = _run_setup(environment={"CXX": str(compiler)})
    assert _one_sentence(text), text
    assert "GCC >= 10 is needed, found 8.3" in text


def test_missing_torch(tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
    text = _run_setup(code=f"sys.path.insert(0, {str(tmp_path)!r})")
    assert _one_sentence(text), text
    assert "building needs torch >= 2.10" in text
    assert "no torch today" in text


def test_old_torch(tmp_path: Path):
    (tmp_path / "torch.py").write_text("__version__ = '2.9.1+cpu'")
    text = _run_setup(code=f"sys.path.insert(0, {str(tmp_path)!r})")
    assert text == "seq2seq_ext: building needs torch >= 2.10, found 2.9.1+cpu."


def test_old_python():
    text = _run_setup(code="sys.version_info = (3, 9, 18); sys.version = '3.9.18 (main)'")
    assert text == "seq2seq_ext: Python >= 3.10 is needed, this is 3.9.18."


def _make(*arguments: str, path: str) -> str:
    """What a failing `make` says on a machine whose PATH holds only some programs."""
    make = "/usr/bin/make"
    done = subprocess.run(
        [make, "-C", str(ROOT), "VENV=build/no-such-environment", *arguments],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="needs make in /usr/bin")
class TestMake:
    def test_missing_python(self):
        text = _make("demo", "PYTHON=no-such-python", path="/usr/bin:/bin")
        assert "seq2seq_ext: no no-such-python found; install Python >= 3.10" in text

    def test_old_python(self, tmp_path: Path):
        python = tmp_path / "python3"
        python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 && exit 0\nexit 1\n')
        python.chmod(0o755)
        text = _make("test", f"PYTHON={python}", path="/usr/bin:/bin")
        assert "Python >= 3.10 is needed" in text
        assert "is Python 3.9.2" in text

    def test_missing_venv_module(self, tmp_path: Path):
        python = tmp_path / "python3"
        python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
        python.chmod(0o755)
        text = _make("test", f"PYTHON={python}", path="/usr/bin:/bin")
        assert "apt install python3-venv" in text

    def test_missing_compiler(self):
        text = _make("demo", f"PYTHON={sys.executable}", "CXX=no-such-c++", path="/usr/bin:/bin")
        assert "no C++ compiler found (no-such-c++)" in text
