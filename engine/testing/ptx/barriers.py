"""bar and barrier.cta: the numbered barriers of a block; PTX ISA 9.7.13.1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .control_flow import BasicBlock
from .faults import LaneError
from .lanes import WARP, Active
from .syntax import Instruction, Modifiers
from .values import Array
from .waiting import Waiting

NUMBERS = 16


@dataclass
class _Arrival:
    """Lanes that have come to a barrier; waiting: None for those of bar.arrive, who went on."""

    mask: Array
    waiting: Waiting | None


class NumberedBarriers:
    """The barriers of every block: who has come to which number."""

    def __init__(self, machine) -> None:
        self.machine, self.threads = machine, machine.threads
        self.arrivals: dict[int, list[_Arrival]] = {}

    def is_whole(self, number: int, count: int) -> bool:
        """Whether all threads of a block complete a barrier by coming together."""
        return count == self.threads and not self.arrivals.get(number)

    def arrive(self, number: int, count: int, mask: Array, resume: int, instruction: Instruction, waits: bool) -> None:
        """Lanes come to a barrier, and it lets go those for whom it is complete now."""
        before = self.arrivals.setdefault(number, [])
        here = np.logical_or.reduce([mask & False, *(one.mask for one in before)])
        if (here & mask).any():
            raise LaneError(int(np.argmax(here & mask)), f"a second arrival at barrier {number}, which is not complete")
        waiting = Waiting(mask, resume, instruction) if waits else None
        before.append(_Arrival(mask, waiting))
        if waiting:
            self.machine.waits.add(waiting)
        present = (here | mask).reshape(-1, self.threads).sum(1)
        if (present > count).any():
            beyond = (present > count).repeat(self.threads) & mask
            raise LaneError(int(np.argmax(beyond)), f"{present.max()} threads at barrier {number}, which counts {count}")
        complete = (present == count).repeat(self.threads)
        for one in before:
            if one.waiting:
                self.machine.waits.wake(one.waiting, complete)
            one.mask = one.mask & ~complete
        self.arrivals[number] = [one for one in before if one.mask.any()]


def barrier(machine, block: BasicBlock):
    """What bar.sync and bar.arrive, of barriers and counts that are constants or registers, do at the end of a block."""
    instruction = block.terminator
    modifiers = Modifiers(instruction)
    modifiers.flag("cta")
    kind = modifiers.one_of("sync", "arrive")
    whole_warps = modifiers.flag("aligned") or instruction.opcode == "bar"
    if kind is None:
        raise instruction.unsupported("bar or barrier, .sync or .arrive, needed")
    modifiers.done()
    operands = (*instruction.operands, str(machine.threads))[:2]
    arrivals_of = constant_barrier(operands) or barrier_in_registers(machine, instruction, operands)

    def take(active: Active) -> list[tuple[int, Array]]:
        if whole_warps:
            active.whole_warps("barrier")
        for number, count, mask in arrivals_of(active):
            if number >= NUMBERS or count % WARP or not count:
                what = f"barrier {number} of {count} threads: one of {NUMBERS}, of whole warps, needed"
                raise LaneError(int(np.argmax(mask)), what)
            if active.full and mask is active.mask and kind == "sync" and machine.barriers.is_whole(number, count):
                return [(block.next, active.mask)]
            machine.barriers.arrive(number, count, mask, block.next, instruction, kind == "sync")
        return [(block.next, active.mask)] if kind == "arrive" else []

    return take


def constant_barrier(operands: tuple[str, ...]):
    """A function of the active lanes that gives (number, count, lanes), None where one of them is in a register."""
    try:
        number, count = (int(operand, 0) for operand in operands)
    except ValueError:
        return None
    return lambda active: [(number, count, active.mask)]


def barrier_in_registers(machine, instruction: Instruction, operands: tuple[str, ...]):
    number, count = (machine.source(instruction, operand, "u32") for operand in operands)

    def arrivals(active: Active):
        pairs = np.unique(np.stack([number[active.lanes], count[active.lanes]], 1), axis=0).tolist()
        return [(one, threads, active.mask & (number == one) & (count == threads)) for one, threads in pairs]

    return arrivals
