"""One CUDA source to a cubin for one architecture, kept until a source, a flag or the compiler changes."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from ...env import setting
from .tools import run

FLAGS = ("-std=c++17", "-O3", "-fmad=false")
HEADERS = (".h", ".cuh")


@functools.cache
def compiler_version() -> str:
    return run("nvcc", "--version")


def digest(source: Path, arch: str) -> str:
    """Hash of the source, every header beneath its folder, the flags and the compiler."""
    headers = sorted(path for path in source.parent.rglob("*") if path.suffix in HEADERS)
    parts = [compiler_version(), " ".join(FLAGS), arch]
    parts += [f"{path.relative_to(source.parent)}\n{path.read_text()}" for path in (source, *headers)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def cubin(source: Path, arch: str, folder: Path | None = None) -> Path:
    """The compiled file: arch is what follows sm_, such as 86, 90a or 120f; folder defaults to one in HALFBYTE_CACHE_DIR.

    Raises ToolMissing without a compiler, and RuntimeError with its message when it refuses the source.
    """
    folder = folder or setting("HALFBYTE_CACHE_DIR") / "cubins"
    path = folder / f"{source.stem}.sm_{arch}.{digest(source, arch)}.cubin"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        run("nvcc", *FLAGS, f"-arch=sm_{arch}", "-cubin", "-o", unfinished, source)
        unfinished.replace(path)
    return path
