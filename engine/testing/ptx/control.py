"""How a basic block ends: branches, exits and what waits; PTX ISA 9.7.12."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .barriers import barrier
from .cluster import cluster_barrier
from .control_flow import BasicBlock
from .faults import LaneError
from .lanes import Active
from .mbarrier import wait_for_phase
from .syntax import Modifiers
from .values import Array
from .warp import members
from .wgmma import warpgroup_multiply_add

# Where the active lanes go: (block, their mask). Lanes that go nowhere have exited or wait.
Leave = Callable[[Active], list[tuple[int, Array]]]


def leave(machine, block: BasicBlock) -> Leave:
    """What happens at the end of a block."""
    instruction = block.terminator
    if instruction is None:
        return goes_to(machine, block.next)
    take = TAKEN[instruction.opcode](machine, block)
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


def goes_to(machine, index: int | None) -> Leave:
    return (lambda active: ended(machine, active)) if index is None else (lambda active: [(index, active.mask)])


def ended(machine, active: Active) -> list[tuple[int, Array]]:
    machine.exit(active.mask)
    return []


def branch(machine, block: BasicBlock) -> Leave:
    modifiers = Modifiers(block.terminator)
    modifiers.flag("uni")
    modifiers.done()
    return goes_to(machine, block.branches[0])


def branch_by_index(machine, block: BasicBlock) -> Leave:
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


def exits(machine, block: BasicBlock) -> Leave:
    Modifiers(block.terminator).done()
    return goes_to(machine, None)


def traps(machine, block: BasicBlock) -> Leave:
    def take(active: Active) -> list[tuple[int, Array]]:
        raise LaneError(int(np.argmax(active.mask)), "trap")

    return take


def any_barrier(machine, block: BasicBlock) -> Leave:
    modifiers = block.terminator.modifiers
    if "warp" in modifiers:
        return warp_barrier(machine, block)
    return cluster_barrier(machine, block) if "cluster" in modifiers else barrier(machine, block)


def warp_barrier(machine, block: BasicBlock) -> Leave:
    modifiers = Modifiers(block.terminator)
    modifiers.flag("warp"), modifiers.flag("sync")
    modifiers.done()
    check = members(machine, block.terminator, block.terminator.operands[0])

    def take(active: Active) -> list[tuple[int, Array]]:
        check(active)
        return [(block.next, active.mask)]

    return take


TAKEN = {
    "bra": branch, "brx": branch_by_index, "ret": exits, "exit": exits, "trap": traps, "bar": any_barrier, "barrier": any_barrier,
    "mbarrier": wait_for_phase, "wgmma": warpgroup_multiply_add,
}  # fmt: skip
