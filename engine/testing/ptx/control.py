"""Branches, exits and barriers; PTX ISA 9.7.12 and 9.7.13.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .control_flow import BasicBlock
from .faults import LaneError
from .machine import Active
from .syntax import Modifiers
from .values import Array

# Where the active lanes go: (block, their mask). Lanes that go nowhere have exited or wait.
Leave = Callable[[Active], list[tuple[int, Array]]]


def leave(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    """What happens at the end of a block."""
    instruction = block.terminator
    if instruction is None:
        return goes_to(block.next)
    take = TAKEN[instruction.opcode](machine, block, barriers)
    if instruction.predicate is None:
        return take
    name, negated = instruction.predicate
    predicate = machine.source(instruction, name, "pred")

    def guarded(active: Active) -> list[tuple[int, Array]]:
        condition = ~predicate if negated else predicate
        taken = active.restrict(condition)
        others = active.mask & ~condition
        left = [(block.next, others)] if others.any() else []
        return left if taken is None else [*take(taken), *left]

    return guarded


def goes_to(index: int | None) -> Leave:
    return (lambda active: []) if index is None else (lambda active: [(index, active.mask)])


def branch(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    modifiers = Modifiers(block.terminator)
    modifiers.flag("uni")
    modifiers.done()
    return goes_to(block.branches[0])


def branch_by_index(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    instruction = block.terminator
    modifiers = Modifiers(instruction)
    modifiers.flag("uni")
    if not modifiers.flag("idx"):
        raise instruction.unsupported("brx.idx needed")
    modifiers.done()
    index = machine.source(instruction, instruction.operands[0], "u32")

    def take(active: Active) -> list[tuple[int, Array]]:
        beyond = active.mask & (index >= len(block.branches))
        if beyond.any():
            lane = int(np.argmax(beyond))
            raise LaneError(lane, f"branch target {int(index[lane])} of {len(block.branches)}")
        masks = [(target, active.mask & (index == number)) for number, target in enumerate(block.branches)]
        return [(target, mask) for target, mask in masks if mask.any()]

    return take


def exits(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    Modifiers(block.terminator).done()
    return lambda active: []


def traps(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    def take(active: Active) -> list[tuple[int, Array]]:
        raise LaneError(int(np.argmax(active.mask)), "trap")

    return take


@dataclass
class _Waiting:
    """Lanes at one barrier instruction, the block where they go on, and the line where they wait."""

    mask: Array
    resume: int
    line: int


class Barriers:
    """The barriers of every block: who waits at which number."""

    def __init__(self, lanes: int, threads: int) -> None:
        self.lanes, self.threads = lanes, threads
        self.waiting: dict[int, list[_Waiting]] = {}

    def arrive(self, number: int, count: int, active: Active, resume: int, line: int) -> list[tuple[int, Array]]:
        """The lanes that a complete barrier lets go on."""
        if active.full and count == self.threads and number not in self.waiting:
            return [(resume, active.mask)]
        waiting = [*self.waiting.get(number, []), _Waiting(active.mask, resume, line)]
        arrived = np.logical_or.reduce([one.mask for one in waiting])
        complete = (arrived.reshape(-1, self.threads).sum(1) == count).repeat(self.threads)
        released = [(one.resume, one.mask & complete) for one in waiting]
        still = [_Waiting(one.mask & ~complete, one.resume, one.line) for one in waiting]
        self.waiting[number] = [one for one in still if one.mask.any()]
        if not self.waiting[number]:
            del self.waiting[number]
        return [(index, mask) for index, mask in released if mask.any()]

    def raise_if_stuck(self) -> None:
        """Nobody can run: raise LaneError for one who waits, saying where the others of its block are."""
        if not self.waiting:
            return
        every = [one for group in self.waiting.values() for one in group]
        lane = int(np.argmax(every[0].mask))
        first = lane // self.threads * self.threads
        block = slice(first, first + self.threads)
        groups = {
            f"{one.mask[block].sum()} threads wait at line {one.line}": one.mask[block] for one in every if one.mask[block].any()
        }
        gone = self.threads - sum(int(mask.sum()) for mask in groups.values())
        ended = [f"{gone} threads have returned"] if gone else []
        raise LaneError(lane, f"divergent barrier: {', '.join([*groups, *ended])}")


def barrier(machine, block: BasicBlock, barriers: Barriers) -> Leave:
    instruction = block.terminator
    modifiers = Modifiers(instruction)
    modifiers.flag("cta")
    if modifiers.flag("warp"):
        return warp_barrier(machine, block, modifiers)
    if not modifiers.flag("sync") or (instruction.opcode == "barrier" and not modifiers.flag("aligned")):
        raise instruction.unsupported("bar.sync or barrier.sync.aligned needed")
    modifiers.flag("aligned")
    modifiers.done()
    try:
        number, count = (int(operand, 0) for operand in (*instruction.operands, str(machine.threads))[:2])
    except ValueError:
        raise instruction.unsupported("a barrier whose number and count are constants needed") from None

    def take(active: Active) -> list[tuple[int, Array]]:
        active.whole_warps("barrier")
        return barriers.arrive(number, count, active, block.next, instruction.line)

    return take


def warp_barrier(machine, block: BasicBlock, modifiers: Modifiers) -> Leave:
    from .warp import members

    modifiers.flag("sync")
    modifiers.done()
    check = members(machine, block.terminator, block.terminator.operands[0])

    def take(active: Active) -> list[tuple[int, Array]]:
        check(active)
        return [(block.next, active.mask)]

    return take


TAKEN = {
    "bra": branch, "brx": branch_by_index, "ret": exits, "exit": exits, "trap": traps, "bar": barrier, "barrier": barrier,
}  # fmt: skip
