# SPDX-License-Identifier: MIT
"""The wheel and the source distribution under test, rebuilt only when a source is newer."""

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"


def _newest_source() -> float:
    folders = [ROOT / "csrc", ROOT / "seq2seq_ext"]
    suffixes = {".py", ".h", ".cpp", ".cu", ".cuh", ".txt", ".typed"}
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    files += [ROOT / name for name in ("setup.py", "pyproject.toml", "MANIFEST.in")]
    return max(path.stat().st_mtime for path in files)


@pytest.fixture(scope="session")
def sdist() -> Path:
    DIST.mkdir(exist_ok=True)
    with open(DIST / "lock", "w") as lock:  # the files of this folder may run in two processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = DIST / "wheel.stamp"  # the one of `make wheel`
        if not stamp.exists() or stamp.stat().st_mtime < _newest_source():
            _build()
            stamp.touch()
    (found,) = DIST.glob("*.tar.gz")
    return found


def _build() -> None:
    for old in [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]:
        old.unlink()
    # Objects are taken over from the build in the tree, Python files are not: some may be gone.
    for copies in ROOT.glob("build/lib.*"):
        shutil.rmtree(copies)
    options = ["--no-isolation", "--sdist", "--wheel", "--outdir", DIST]
    command = [sys.executable, "-m", "build", *options, ROOT]
    # The ninja that built the library, as under `make`: another version takes no object over.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="session")
def wheel(sdist: Path) -> Path:
    """Built from the tree; `make wheel`, which .ci/run calls first, builds it from the sdist."""
    (found,) = sdist.parent.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds the wheel's files, unpacked, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
