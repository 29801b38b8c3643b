"""nvcc's PTX of our kernel sources, compiled once and kept in the cache folder."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ...env import setting
from .parser import entry_names, parse
from .syntax import Module

SOURCES = Path(__file__).resolve().parents[3] / "csrc" / "cuda"
# Those of setup.py, so that what is interpreted is what a GPU would be given.
FLAGS = ("-std=c++17", "-O3", "-fmad=false")


@functools.cache
def nvcc_version(nvcc: str) -> str:
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout


class PtxModule:
    """The PTX of one .cu file for a virtual architecture: "80", "90", "120f". Entries are parsed when asked for.

    Raises RuntimeError without nvcc or where it fails.
    """

    def __init__(self, source: Path, arch: str) -> None:
        self.source, self.arch = source, arch
        self._parsed: dict[str, Module] = {}

    @functools.cached_property
    def text(self) -> str:
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise RuntimeError(f"nvcc needed to compile {self.source.name} to PTX, found none")
        kept = self._kept(nvcc)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            self._compile(nvcc, kept)
        return kept.read_text()

    @functools.cached_property
    def entries(self) -> frozenset[str]:
        return frozenset(entry_names(self.text))

    def module(self, entry: str) -> Module:
        """The module with this one entry."""
        if entry not in self._parsed:
            self._parsed[entry] = parse(self.text, only=entry)
        return self._parsed[entry]

    def _kept(self, nvcc: str) -> Path:
        inputs = hashlib.sha256(" ".join((nvcc_version(nvcc), self.arch, *FLAGS)).encode())
        for path in [self.source, *sorted(SOURCES.glob("*.h")), *sorted(self.source.parent.glob("*.h"))]:
            inputs.update(path.name.encode() + b"\0" + path.read_bytes())
        return setting("HALFBYTE_CACHE_DIR") / "ptx" / f"{self.source.stem}-{self.arch}-{inputs.hexdigest()[:20]}.ptx"

    def _compile(self, nvcc: str, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            output = Path(folder) / target.name
            command = [nvcc, "-ptx", f"-arch=compute_{self.arch}", *FLAGS, f"-I{SOURCES}", str(self.source), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"nvcc could not compile {self.source.name}: {done.stderr.strip()}")
            os.replace(output, target)
