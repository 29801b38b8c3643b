"""Compile what ops launch on GPUs that are not here, and read the machine code."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...ops import OPS
from ...ops.triton.register import TABLES
from ..sass.disassemble import kernels
from ..sass.report import Report, report
from .target import compiling_for

REJECTS = {op: rejects for table in TABLES.values() for op, rejects in table.items()}


@dataclass(frozen=True)
class Compiled:
    """One kernel of one call. shared: bytes, those that the launch adds included; seconds: for all kernels of the call."""

    op: str
    call: str
    report: Report
    shared: int
    seconds: float


def compile_calls(op: str, calls: dict[str, tuple], capability: int) -> list[Compiled]:
    """Every kernel that these calls of the op launch; calls that its kernels reject are left out.

    Raises ImportError where the op has no Triton kernel here, and what Triton raises when it cannot compile one.
    """
    if reason := OPS[op].missing("triton"):
        raise ImportError(f"{op}: {reason}")
    found = []
    for name, args in calls.items():
        if REJECTS[op](*args):
            continue
        began = time.perf_counter()
        with compiling_for(capability) as compiled:
            OPS[op].targets["triton"](*args)
        seconds = time.perf_counter() - began
        found += [Compiled(op, name, read(kernel, capability), kernel.metadata.shared, seconds) for kernel in compiled]
    return found


def read(kernel, capability: int) -> Report:
    """What the machine code of Triton's CompiledKernel shows."""
    arch = {90: "90a", 120: "120f"}.get(capability, str(capability))
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        return report(next(iter(kernels(cubin))), arch)


def failures(compiled: Compiled, opcode: str = "") -> list[str]:
    """One sentence for each gate that the kernel breaks: no local memory, and the matrix opcode where one is named."""
    seen = compiled.report
    found = []
    if seen.spills or seen.stack:
        found.append(f"no local memory is allowed, got {seen.spills} accesses and {seen.stack} bytes of it")
    if opcode and not any(each.startswith(opcode) for each in seen.matrix):
        found.append(f"{opcode} is needed, got {', '.join(seen.matrix) or 'no matrix instruction'}")
    return found
