"""Compile what ops launch on GPUs that are not here, and read the machine code."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...ops import OPS
from ...ops.triton.register import TABLES
from ..sass.disassemble import RESOURCES, kernels
from ..sass.report import Report, report
from ..sass.tools import run
from .target import compiling_for

REJECTS = {op: rejects for table in TABLES.values() for op, rejects in table.items()}
# What nvdisasm and the model of rates call the architectures that Triton's own code is for.
ARCHITECTURES = {90: "90a", 120: "120f"}


@dataclass(frozen=True)
class Compiled:
    """One kernel of one call. shared: bytes of a block, as launched; seconds: of compiling all kernels of the call."""

    op: str
    call: str
    kernel: str
    capability: int
    cubin: bytes
    shared: int
    seconds: float

    @cached_property
    def resources(self) -> tuple[int, int]:
        """Registers of a thread, and bytes of local memory, which nothing but spilled registers is in."""
        with self._file() as path:
            _, registers, stack, _, local = RESOURCES.findall(run("cuobjdump", "-res-usage", path))[0]
        return int(registers), int(stack) + int(local)

    @cached_property
    def report(self) -> Report:
        """What the disassembly shows, which takes a second."""
        with self._file() as path:
            return report(kernels(path)[0], ARCHITECTURES.get(self.capability, str(self.capability)))

    def _file(self):
        return written(self.cubin)


class written:
    """The bytes as a file, while the context lasts."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self) -> Path:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "kernel.cubin"
        path.write_bytes(self.content)
        return path

    def __exit__(self, *exception) -> None:
        self.folder.cleanup()


def compile_calls(op: str, calls: dict[str, tuple], capability: int) -> Iterator[Compiled]:
    """Every kernel that these calls of the op launch; calls that its kernels reject are left out.

    Raises ImportError where the op has no Triton kernel here, and what Triton raises when it cannot compile one.
    """
    if reason := OPS[op].missing("triton"):
        raise ImportError(f"{op}: {reason}")
    for name, args in calls.items():
        began = time.perf_counter()
        with compiling_for(capability) as compiled:
            if not REJECTS[op](*args):
                OPS[op].targets["triton"](*args)
        seconds = time.perf_counter() - began
        for kernel in compiled:
            yield Compiled(op, name, kernel.name, capability, kernel.asm["cubin"], kernel.metadata.shared, seconds)
