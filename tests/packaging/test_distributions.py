# SPDX-License-Identifier: MIT
"""What the wheel and the source distribution hold, and what they say of themselves."""

import email
import re
import tarfile
import zipfile
from pathlib import Path

import seq2seq_ext

ROOT = Path(__file__).resolve().parents[2]
CPP_SUFFIXES = {".cpp", ".h", ".cu", ".cuh"}
# One or the other goes into kernel_bench, by what it is built for.
NOT_LISTED = {"kernel_bench/device_cuda.cu", "kernel_bench/device_host.cpp"}


def _sources_on_disk() -> set[str]:
    folder = ROOT / "csrc"
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in CPP_SUFFIXES}


def test_every_source_is_listed_once():
    lines = (ROOT / "csrc" / "sources.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    compiled = {name for name in _sources_on_disk() if name.endswith((".cpp", ".cu"))}
    assert sorted(listed) == sorted(compiled - NOT_LISTED)


def test_wheel_is_abi3_for_python_310(wheel: Path):
    assert re.fullmatch(
        rf"seq2seq_ext-{re.escape(seq2seq_ext.__version__)}-cp310-abi3-\w+\.whl", wheel.name
    )
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        text = archive.read(name).decode()
    assert "Root-Is-Purelib: false" in text
    assert re.search(r"^Tag: cp310-abi3-", text, re.M)


def test_wheel_holds_the_package_alone(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    outside = {n for n in names if not re.match(r"seq2seq_ext(-[^/]+\.dist-info)?/", n)}
    assert not outside
    assert {n for n in names if n.endswith(".so")} == {"seq2seq_ext/_C.abi3.so"}
    in_tree = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "seq2seq_ext").rglob("*")
        if path.suffix in {".py", ".typed"}
    }
    assert {n for n in names if n.startswith("seq2seq_ext/")} - {
        "seq2seq_ext/_C.abi3.so"
    } == in_tree


def test_metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        prefix = f"seq2seq_ext-{seq2seq_ext.__version__}.dist-info/"
        metadata = email.message_from_bytes(archive.read(prefix + "METADATA"))
        entry_points = archive.read(prefix + "entry_points.txt").decode()
    assert metadata["Version"] == seq2seq_ext.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    core = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert core == ["torch>=2.10"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"train", "bench", "dev"}
    assert "seq2seq-ext = seq2seq_ext.__main__:main" in entry_points


def test_source_distribution_holds_what_a_build_needs(sdist: Path):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"csrc/" + name for name in _sources_on_disk()} | {
        "csrc/sources.txt",
        "setup.py",
        "pyproject.toml",
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
    }
    assert needed <= names
    assert not {name for name in names if name.endswith((".so", ".o", ".pyc"))}
