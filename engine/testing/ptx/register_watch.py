"""Registers of wgmma: those that a multiplication under way uses, and those touched since the last wgmma.fence.

PTX ISA 9.7.15.3 and 9.7.15.7.1. Only instructions that name a register of some wgmma pass through here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .data_movement import vector
from .faults import LaneError
from .syntax import Instruction, Kernel
from .values import Array


@dataclass(eq=False)
class Multiplication:
    """A wgmma.mma_async under way in one warpgroup. groups: of its lanes; epoch: fences they had passed; chunks: it reads."""

    instruction: Instruction
    mask: Array
    group: Array
    epoch: int
    shape: str
    sums: set[str]
    factors: set[str]
    chunks: Array


def registers_of(kernel: Kernel) -> frozenset[str]:
    """Those that wgmma.mma_async names in braces, and those that moves connect with them: compilers rename across moves."""
    names = {
        name
        for one in kernel.instructions
        if one.opcode == "wgmma" and "mma_async" in one.modifiers
        for operand in one.operands[:2]
        if operand.startswith("{")
        for name in vector(operand)
    }
    moves = [move for one in kernel.instructions if (move := plain_move(one, kernel))] if names else []
    while True:
        connected = {name for move in moves if not names.isdisjoint(move) for name in move}
        if connected <= names:
            return frozenset(names)
        names |= connected


def plain_move(instruction: Instruction, kernel: Kernel) -> tuple[str, str] | None:
    """Target and source of a move between registers."""
    operands = instruction.operands
    if instruction.opcode == "mov" and len(operands) == 2 and all(operand in kernel.registers for operand in operands):
        return operands[0], operands[1]
    return None


class RegisterWatch:
    """Of a batch of blocks. epoch: how many wgmma.fence each lane has passed; touched: that number at a register's last use."""

    def __init__(self, kernel: Kernel, lanes: int) -> None:
        self.kernel, self.lanes = kernel, lanes
        self.names = registers_of(kernel)
        self.reset()

    def reset(self) -> None:
        self.epoch, self.committed = np.zeros(self.lanes, np.int64), np.zeros(self.lanes, np.int64)
        self.touched: dict[str, Array] = {}
        self.under_way: list[Multiplication] = []

    def named_by(self, instruction: Instruction) -> set[str]:
        """The registers of wgmma that another instruction names."""
        if not self.names or instruction.opcode == "wgmma":
            return set()
        return self.names.intersection(re.findall(r"[\w$%#]+", " ".join(instruction.operands)))

    def guarded(self, instruction: Instruction, step):
        """The step of an instruction, with a check of the registers of wgmma that it names."""
        names = self.named_by(instruction)
        if not names:
            return step
        move = plain_move(instruction, self.kernel)

        def checked(active) -> None:
            if move is None or not self.follow(*move, active.mask):
                self.touch(names, active.mask)
            step(active)

        return checked

    def follow(self, target: str, source: str, mask: Array) -> bool:
        """A move renames a sum under way; whether it was one."""
        for one in self.under_way:
            if source in one.sums and (one.mask & mask).any():
                one.sums.add(target)
                return True
        return False

    def touch(self, names: set[str], mask: Array) -> None:
        for one in self.under_way:
            if not (one.sums.isdisjoint(names) and one.factors.isdisjoint(names)) and (one.mask & mask).any():
                name = min(names & (one.sums | one.factors))
                what = f"register {name} of the wgmma at line {one.instruction.line}, whose group nobody waited for"
                raise LaneError(int(np.argmax(one.mask & mask)), what)
        for name in names:
            row = self.touched.setdefault(name, np.full(self.lanes, -1, np.int64))
            np.copyto(row, self.epoch, where=mask)

    def begin(self, one: Multiplication, lanes: slice) -> None:
        """Raises LaneError where the registers are not ready."""
        lane, epoch = lanes.start, self.epoch[lanes]
        if one.epoch == 0:
            raise LaneError(lane, "wgmma.mma_async without a wgmma.fence before it")
        for name in sorted(one.sums | one.factors):
            row = self.touched.get(name)
            if row is not None and (row[lanes] == epoch).any():
                raise LaneError(lane, f"register {name} of wgmma.mma_async is used after the last wgmma.fence before it")
        for other in self.under_way:
            if (other.mask & one.mask).any():
                self.check_order(other, one, lane)
        self.under_way.append(one)

    def check_order(self, before: Multiplication, after: Multiplication, lane: int) -> None:
        ordered = before.shape == after.shape or before.epoch < after.epoch
        if before.sums & after.factors or before.factors & after.sums or (before.sums & after.sums and not ordered):
            name = min((before.sums | before.factors) & (after.sums | after.factors))
            what = f"register {name} of the wgmma at line {before.instruction.line}, whose group nobody waited for"
            raise LaneError(lane, what)

    def wait(self, mask: Array, pending_groups: int, shadow) -> None:
        """All but the newest pending_groups groups of these lanes are done; a warpgroup's reads are done for all of its warps."""
        for one in list(self.under_way):
            done = one.mask & mask & (one.group < self.committed - pending_groups)
            if done.any():
                if one.chunks.size:
                    shadow.end_read(one.chunks)
                    one.chunks = one.chunks[:0]
                one.mask = one.mask & ~done
                if not one.mask.any():
                    self.under_way.remove(one)
