# SPDX-License-Identifier: MIT
"""What a row needs to be understood later: processor, caches, versions, commit."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

import seq2seq_ext

ROOT = Path(__file__).resolve().parent.parent
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
PACKAGES = ("numpy", "onnxruntime", "openvino")


def processor() -> str:
    """The processor's name; with family and model, for one name may stand for several designs."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    return processor_of(text) or platform.processor() or platform.machine()


def processor_of(cpuinfo: str) -> str:
    found = {}
    for key in ("model name", "cpu family", "model"):
        line = re.search(rf"^{key}\s*:\s*(.*\S)", cpuinfo, re.MULTILINE)
        found[key] = line[1] if line else ""
    if not (found["cpu family"] and found["model"]):
        return found["model name"]
    name = found["model name"] or "processor"
    return f"{name} (family {found['cpu family']} model {found['model']})"


def cache_sizes(folder: Path = CACHES) -> dict[str, tuple[int, bool]]:
    """Bytes of each data cache by its level ("L1", ...), and whether the cores share it."""
    found = {}
    for cache in sorted(folder.glob("index*")):
        try:
            level, kind, size, cores = (
                (cache / name).read_text(encoding="utf-8").strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
        except OSError:
            continue
        if kind != "Instruction":
            bytes_ = int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
            found[f"L{level}"] = (bytes_, bool(re.search("[,-]", cores)))
    # Where the system does not tell, sizes that most processors have at least.
    return found or {"L1": (32 << 10, False), "L2": (1 << 20, False), "L3": (16 << 20, True)}


def commit() -> str:
    """The short hash of the tree that is measured, with + if it has been changed since."""

    def git(*args: str) -> str:
        run = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "csrc", "seq2seq_ext", "setup.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def versions() -> str:
    """Of the peers, of those that are installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def environment() -> dict[str, object]:
    info = seq2seq_ext.backend_info()
    return {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "isa": info["cpu"]["isa"],
        "torch": torch.__version__,
        "peers": versions(),
        "version": seq2seq_ext.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }
