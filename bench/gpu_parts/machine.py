"""What is measured on: names, versions and clocks. Settings of the GPU are only ever read."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FACTS = ("name", "driver_version", "memory.total", "compute_cap", "power.limit", "clocks.max.sm", "clocks.max.memory")
CLOCKS = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_event_reasons.active")
TOOLKIT = Path("/usr/local/cuda/bin")
PACKAGES = ("torch", "triton", "diffusers", "numpy", "nvidia-cudnn-cu13", "nvidia-cublas", "flash-attn-3")


def query(fields: tuple[str, ...]) -> dict[str, str]:
    """What nvidia-smi says of the first GPU; empty without one."""
    if not shutil.which("nvidia-smi"):
        return {}
    # One that this driver does not know makes it refuse them all.
    return _ask(fields) or {name: text for field in fields for name, text in _ask((field,)).items()}


def _ask(fields: tuple[str, ...]) -> dict[str, str]:
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    shown = subprocess.run(command, capture_output=True, text=True)
    return dict(zip(fields, (value.strip() for value in shown.stdout.split(",")), strict=False)) if shown.returncode == 0 else {}


def add_toolkit_to_path() -> None:
    """CUDA's own folder, where a shell's path leaves it out: without nvcc nothing would be built, and nothing would say why."""
    if not shutil.which("nvcc") and (TOOLKIT / "nvcc").exists():
        os.environ["PATH"] += f"{os.pathsep}{TOOLKIT}"


def clocks() -> dict[str, str]:
    return query(CLOCKS)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def nvcc_version() -> str | None:
    if not shutil.which("nvcc"):
        return None
    return subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout.strip().splitlines()[-1]


def machine() -> dict[str, Any]:
    """Needs neither torch nor halfbyte: it is asked before either is known to be there."""
    return {
        "gpu": query(FACTS),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "nvcc": nvcc_version(),
        "versions": {package: installed(package) for package in PACKAGES},
    }
