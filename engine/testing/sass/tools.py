"""Where the CUDA compiler and disassemblers are: on PATH, under CUDA_HOME, or in NVIDIA's wheels."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = {"nvcc": "nvidia-cuda-nvcc", "cuobjdump": "nvidia-cuda-cuobjdump", "nvdisasm": "nvidia-cuda-nvdisasm"}


class ToolMissing(RuntimeError):
    """A program that reading kernels needs is not installed."""


def find(name: str) -> str | None:
    """The path of the program, or None."""
    if path := shutil.which(name):
        return path
    folders = [Path(home) / "bin"] if (home := os.environ.get("CUDA_HOME")) else []
    wheels = importlib.util.find_spec("nvidia")
    for root in (wheels and wheels.submodule_search_locations) or []:
        folders += sorted(Path(root).glob("*/bin"))
    return next((str(folder / name) for folder in folders if os.access(folder / name, os.X_OK)), None)


@functools.cache
def tool(name: str) -> str:
    """The path of the program. Raises ToolMissing naming every missing one of PACKAGES and where to get it."""
    missing = [each for each in PACKAGES if find(each) is None] if name in PACKAGES else []
    if name not in missing and (path := find(name)):
        return path
    packages = " ".join(PACKAGES[each] for each in missing) or "binutils"
    raise ToolMissing(f"{', '.join(missing) or name}: needed on PATH, under CUDA_HOME/bin or from {packages}, and not found")


def run(name: str, *arguments: str | Path) -> str:
    """What the program prints. Raises ToolMissing, and RuntimeError with its first lines of complaint when it fails."""
    done = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        complaint = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[:10])
        raise RuntimeError(f"{name} {' '.join(map(str, arguments))}: {complaint}")
    return done.stdout
