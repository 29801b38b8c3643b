"""Hold the kernels of one source file, compiled for one architecture, to the gates that apply to them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .compile import cubin
from .disassemble import kernels
from .gates import Gate
from .report import Report, report


@dataclass(frozen=True)
class Verdict:
    """failures: one sentence for each broken gate."""

    report: Report
    failures: tuple[str, ...]


def architectures(folder: Path) -> dict[str, list[str]]:
    """Stem of each kernel file of csrc/cuda -> the architectures it is built for."""
    return tomllib.loads((folder / "architectures.toml").read_text())["kernels"]


def check(source: Path, arch: str, gates: Iterable[Gate], folder: Path | None = None) -> list[Verdict]:
    """One verdict for each kernel of the file.

    Raises ValueError for a gate that no kernel comes under, and what cubin() raises.
    """
    gates = [gate for gate in gates if gate.source == source.stem and arch in gate.archs]
    verdicts = []
    unused = list(gates)
    for kernel in kernels(cubin(source, arch, folder)):
        own = [gate for gate in gates if re.search(gate.kernel, kernel.name)]
        unused = [gate for gate in unused if gate not in own]
        loop_gate = next((gate for gate in own if gate.opcode), Gate("", "", ()))
        seen = report(kernel, arch, loop_gate.opcode, loop_gate.inner_iterations)
        verdicts.append(Verdict(seen, tuple(_failures(seen, own))))
    if unused:
        raise ValueError(f"{source.name} for sm_{arch}: a kernel whose name matches {unused[0].kernel!r} needed, got none")
    return verdicts


def _failures(seen: Report, gates: list[Gate]) -> list[str]:
    failures = []
    if seen.spills or seen.stack:
        failures.append(f"no local memory is allowed, got {seen.spills} accesses and {seen.stack} bytes of it")
    for gate in gates:
        if seen.registers > gate.max_registers:
            failures.append(f"at most {gate.max_registers} registers are allowed, got {seen.registers}")
        if gate.opcode:
            failures += _loop_failures(seen, gate)
    return failures


def _loop_failures(seen: Report, gate: Gate) -> list[str]:
    if not (loop := seen.loop) or not any(opcode.startswith(gate.opcode) for opcode in loop.matrix):
        found = ", ".join(loop.matrix if loop else seen.matrix) or "no matrix instruction"
        return [f"{gate.opcode} is needed in a loop, got {found}"]
    failures = []
    if loop.depth > gate.max_depth:
        failures.append(f"at most {gate.max_depth} nested loops are allowed, got {loop.depth}, and only the innermost counted")
    if gate.max_per_entry is not None and loop.per_entry > gate.max_per_entry:
        failures.append(f"at most {gate.max_per_entry} instructions per accumulator entry are allowed, got {loop.per_entry:.2f}")
    return failures
