"""Run an entry over a grid: each thread of a few blocks is one column of numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import arithmetic, bits, comparison, conversion, data_movement, matrix, warp  # noqa: F401, they register opcodes
from .control import Leave, leave
from .faults import LaneError, PtxFault
from .lanes import WARP, Active
from .machine import Machine
from .memory import Memory
from .registry import DECODERS, Step
from .schedule import Schedule
from .syntax import Instruction, Kernel, Module
from .values import Array

# numpy's time for one instruction hardly grows up to here.
LANES_AT_ONCE = 2048


def launch(
    module: Module, name: str, grid: tuple[int, int, int], threads: int, shared_bytes: int, arguments: bytes, memory: Memory,
    label: str = "", seed: int | None = None,
) -> int:  # fmt: skip
    """Run every block of a launch; returns how many instructions were executed, each counted once for all lanes it ran on.

    threads: of one block, in whole warps, along x. shared_bytes: dynamic shared memory. arguments: the argument buffer as CUDA's
    ABI lays it out, for a kernel of one struct its bytes. memory: what the kernel may touch; addresses are those of this process.
    label: what a fault calls the kernel, instead of its mangled name. seed: draws who runs ahead of whom (see schedule.py).
    Raises PtxFault for a kernel that does wrong, UnsupportedPtx for PTX not known here.
    """
    if name not in module.entries:
        raise ValueError(f"entry: one of {', '.join(module.entries)} needed, got {name}")
    kernel = module.entries[name]
    if threads % WARP or not 0 < threads <= (kernel.max_threads or 1024):
        raise ValueError(f"threads: a multiple of {WARP} up to {kernel.max_threads or 1024} needed, got {threads}")
    if any(extent % inside for extent, inside in zip(grid, kernel.cluster)):
        raise ValueError(f"grid: whole clusters of {kernel.cluster} blocks needed, got {grid}")
    blocks, cluster = math.prod(grid), math.prod(kernel.cluster)
    together = cluster * max(1, min(blocks, LANES_AT_ONCE // threads) // cluster)
    machine = Machine(module, kernel, grid, threads, together, shared_bytes, arguments, memory)
    program = _Program(machine, kernel, label or name, Schedule(machine.lanes, threads, seed))
    with np.errstate(all="ignore"):
        return sum(program.run(first) for first in range(0, blocks, together))


@dataclass
class _BoundBlock:
    """A basic block as functions of the active lanes."""

    steps: list[tuple[Instruction, Step]]
    terminator: Instruction | None
    leave: Leave


class _Program:
    """A kernel's basic blocks, bound to one machine when they first run: kernels have many ways that a launch never takes."""

    def __init__(self, machine: Machine, kernel: Kernel, label: str, schedule: Schedule) -> None:
        self.machine, self.label, self.schedule = machine, label, schedule
        self.blocks = kernel.blocks
        self.bound: dict[int, _BoundBlock] = {}

    def block(self, index: int) -> _BoundBlock:
        if index not in self.bound:
            block = self.blocks[index]
            steps = [(one, decoded(self.machine, one)) for one in block.instructions]
            self.bound[index] = _BoundBlock(steps, block.terminator, leave(self.machine, block))
        return self.bound[index]

    def run(self, first_block: int) -> int:
        executed = 0
        paths: dict[int, Array] = {}
        going = [(0, self.machine.begin(first_block).mask)]
        while going or paths or self.machine.waits.waiting:
            for index, mask in going:
                paths[index] = paths[index] | mask if index in paths else mask
            chosen = self.schedule.take(paths, self.machine.waits.resumes())
            if chosen is None:
                going = self.woken(alone=not paths)
                chosen = self.schedule.take(paths, None) if not going else None
            if chosen is not None:
                going = self.run_block(*chosen)
                executed += len(self.block(chosen[0]).steps) + 1
        self.woken(alone=True)
        return executed

    def woken(self, alone: bool) -> list[tuple[int, Array]]:
        try:
            return self.machine.wake(alone)
        except LaneError as error:
            raise self.fault(error.instruction, error) from None

    def run_block(self, index: int, mask: Array) -> list[tuple[int, Array]]:
        """Where the lanes of the mask go after a block, and those for whom it ended a wait."""
        active, block, instruction = Active(mask), self.block(index), None
        try:
            for instruction, step in block.steps:
                step(active)
            instruction = block.terminator
            return block.leave(active) + self.machine.waits.take_woken()
        except LaneError as error:
            raise self.fault(instruction, error) from None

    def fault(self, instruction: Instruction | None, error: LaneError) -> PtxFault:
        where = f"PTX line {instruction.line} ({instruction.text})" if instruction else "its end"
        return PtxFault(f"{self.label}, {where}, {self.machine.place(error.lane)}: {error.sentence}")


def decoded(machine: Machine, instruction: Instruction) -> Step:
    decoder: Callable[[Machine, Instruction], Step] | None = DECODERS.get(instruction.opcode)
    if decoder is None:
        raise instruction.unsupported(f"opcode {instruction.opcode} is not known here")
    step = machine.watch.guarded(instruction, decoder(machine, instruction))
    if instruction.predicate is None:
        return step
    name, negated = instruction.predicate
    predicate = machine.source(instruction, name, "pred")

    def guarded(active: Active) -> None:
        chosen = active.restrict(~predicate if negated else predicate)
        if chosen is not None:
            step(chosen)

    return guarded
