"""What the disassembly of one kernel shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .disassemble import Instruction, Kernel
from .flow import Flow, Loop
from .model import issue_over_tensor
from .opcodes import kind, matrix_shape, multiply_adds

LANES = 32


@dataclass(frozen=True)
class SteadyLoop:
    """One iteration of the loop that a warp spends its time in.

    matrix: opcode -> count; classes: class -> count; entries: accumulator entries of a thread that one step of K updates;
    depth: 1 unless another loop, whose instructions are not counted, is around it; ratio: modelled, see issue_over_tensor.
    """

    instructions: int
    matrix: Counter[str]
    classes: Counter[str]
    entries: float
    depth: int
    ratio: float | None

    @property
    def per_entry(self) -> float:
        return self.instructions / self.entries


@dataclass(frozen=True)
class Report:
    """spills: instructions that touch local memory; stack: bytes of it; matrix: opcode -> count in the whole kernel."""

    name: str
    arch: str
    registers: int
    shared: int
    spills: int
    stack: int
    matrix: Counter[str]
    loop: SteadyLoop | None


def report(kernel: Kernel, arch: str, opcode: str = "", inner_iterations: int = 1) -> Report:
    """Read a kernel.

    The loop is the innermost one with the most multiply-adds among those with a matrix opcode that starts with `opcode`, if any
    has; with inner_iterations > 1 it is the loop around that, in which the inner one runs so many times. Raises ValueError for a
    matrix instruction of unknown shape.
    """
    return Report(
        name=kernel.name,
        arch=arch,
        registers=kernel.registers,
        shared=kernel.shared,
        spills=sum(kind(each.base) == "local" for each in kernel.instructions),
        stack=kernel.stack + kernel.local,
        matrix=_matrix(kernel.instructions),
        loop=_steady_loop(Flow(kernel), arch, opcode, inner_iterations),
    )


def _steady_loop(flow: Flow, arch: str, opcode: str, inner_iterations: int) -> SteadyLoop | None:
    every = [(loop, flow.instructions(loop)) for loop in flow.loops()]
    innermost = [(loop, issued) for loop, issued in every if _matrix(issued) and _innermost(loop, every)]
    wanted = [pair for pair in innermost if any(each.startswith(opcode) for each in _matrix(pair[1]))] or innermost
    if not wanted:
        return None
    loop, issued = max(wanted, key=lambda pair: (_products(_matrix(pair[1])), len(pair[1])))
    around = [pair for pair in every if loop.blocks < pair[0].blocks]
    if inner_iterations > 1 and around:
        inner = issued
        loop, issued = min(around, key=lambda pair: len(pair[0].blocks))
        issued = issued + inner * (inner_iterations - 1)
    matrix = _matrix(issued)
    counted = Counter({each: count for each, count in matrix.items() if each.startswith(opcode)}) or matrix
    step = max(matrix_shape(each)[2] for each in counted)
    return SteadyLoop(
        instructions=len(issued),
        matrix=matrix,
        classes=Counter(kind(each.base, each.predicate) for each in issued),
        entries=_products(counted) / LANES / step,
        depth=loop.depth,
        ratio=issue_over_tensor(len(issued), matrix, arch),
    )


def _innermost(loop: Loop, loops: list[tuple[Loop, list[Instruction]]]) -> bool:
    return not any(other.blocks < loop.blocks and _matrix(issued) for other, issued in loops)


def _matrix(instructions: list[Instruction] | tuple[Instruction, ...]) -> Counter[str]:
    return Counter(each.opcode for each in instructions if kind(each.base) == "matrix")


def _products(matrix: Counter[str]) -> int:
    return sum(count * multiply_adds(opcode) for opcode, count in matrix.items())
