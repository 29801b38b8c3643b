"""mbarrier instructions and the fences of the asynchronous proxy; PTX ISA 9.7.13.15 and 9.7.13.4.

Copies complete as late as they may, so a wait for a phase stays where it is until the phase is complete. It gives up, as a GPU's
may at any time, only where nobody else can run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .control_flow import BasicBlock
from .faults import LaneError
from .lanes import Active
from .mbarriers import BYTES, PhaseWait, groups_of
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import Array
from .waiting import Waiting

ORDERS = ("release", "acquire", "relaxed", "sc", "acq_rel")
SCOPES = ("cta", "cluster", "gpu", "sys")


def read_order(modifiers: Modifiers) -> None:
    modifiers.one_of(*ORDERS)
    modifiers.one_of(*SCOPES)


def location(machine, instruction: Instruction, operand: str, space: str | None) -> Callable[[Array], tuple[Array, Array]]:
    """A function of lanes that gives each one's mbarrier by position, and whether it is another block's."""
    base, offset = machine.address(instruction, operand)
    memory = machine.cluster_shared if space != "shared::cta" else machine.shared

    def locate(lanes: Array) -> tuple[Array, Array]:
        addresses = base[lanes] + offset
        positions = memory.position(addresses, BYTES, lanes, True)
        return positions, positions // machine.shared.stride != lanes // machine.threads

    return locate


@opcode("mbarrier")
def mbarrier(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    operation = modifiers.one_of("init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx")
    if operation is None or modifiers.flag("noComplete"):
        raise instruction.unsupported("mbarrier.init, .inval, .arrive, .expect_tx or .complete_tx needed")
    read_order(modifiers)
    expects = operation != "expect_tx" and modifiers.flag("expect_tx")
    space = modifiers.one_of("shared", "shared::cta", "shared::cluster")
    if modifiers.type() != "b64":
        raise instruction.unsupported("mbarrier of .b64 needed")
    if operation in ("init", "inval", "expect_tx", "complete_tx"):
        return without_state(machine, instruction, operation, space)
    return arrive(machine, instruction, operation, space, expects)


def without_state(machine, instruction: Instruction, operation: str, space: str | None) -> Step:
    locate = location(machine, instruction, instruction.operands[0], space)
    number = machine.source(instruction, (*instruction.operands, "0")[1], "u32")

    def step(active: Active) -> None:
        lanes = np.flatnonzero(active.mask)
        for position, value, lane in zip(*(one.tolist() for one in (locate(lanes)[0], number[lanes], lanes))):
            barriers = machine.mbarriers
            if operation == "init":
                barriers.init(position, value, lane)
            elif operation == "inval":
                barriers.invalidate(position, lane)
            else:
                barriers.expect(barriers.at(position, lane), value if operation == "expect_tx" else -value, lane)
                barriers.check(barriers.at(position, lane))

    return step


def arrive(machine, instruction: Instruction, operation: str, space: str | None, expects: bool) -> Step:
    target = None if instruction.operands[0] == "_" else machine.target(instruction, instruction.operands[0], "b64")
    locate = location(machine, instruction, instruction.operands[1], space)
    third = (*instruction.operands[2:], "0" if expects else "1")[0]
    number = machine.source(instruction, third, "u32")

    def step(active: Active) -> None:
        lanes = np.flatnonzero(active.mask)
        positions, outside = locate(lanes)
        for (position, value), chosen in groups_of(positions, number[lanes]):
            lane = int(lanes[chosen[0]])
            barrier = machine.mbarriers.at(position, lane, bool(outside[chosen].any()))
            if operation == "arrive_drop":
                barrier.expected -= len(chosen) * (1 if expects else value)
            if expects:
                machine.mbarriers.expect(barrier, value * len(chosen), lane)
            phase = machine.mbarriers.arrive(barrier, len(chosen) * (1 if expects else value), lane)
            if target is not None:
                target[lanes[chosen]] = phase

    return step


def wait_for_phase(machine, block: BasicBlock):
    """test_wait and try_wait at the end of a block, for the phase of a state or the last one of a parity."""
    instruction = block.terminator
    modifiers = Modifiers(instruction)
    modifiers.one_of("try_wait", "test_wait")
    by_parity = modifiers.flag("parity")
    read_order(modifiers)
    space = modifiers.one_of("shared", "shared::cta")
    if modifiers.type() != "b64":
        raise instruction.unsupported("mbarrier of .b64 in the block's own shared memory needed")
    target = machine.target(instruction, instruction.operands[0], "pred")
    locate = location(machine, instruction, instruction.operands[1], space or "shared::cta")
    wanted = machine.source(instruction, instruction.operands[2], "u32" if by_parity else "u64")

    def take(active: Active) -> list[tuple[int, Array]]:
        lanes = np.flatnonzero(active.mask)
        going = np.zeros(machine.lanes, bool)
        for (position, value), chosen in groups_of(locate(lanes)[0], wanted[lanes]):
            barrier = machine.mbarriers.at(position, int(lanes[chosen[0]]))
            if by_parity and value > 1:
                raise LaneError(int(lanes[chosen[0]]), f"a parity of 0 or 1 needed, got {value}")
            complete = barrier.phase & 1 != value if by_parity else barrier.phase > value
            if complete:
                target[lanes[chosen]], going[lanes[chosen]] = True, True
            else:
                mask = np.zeros(machine.lanes, bool)
                mask[lanes[chosen]] = True
                waiting = Waiting(
                    mask, block.next, instruction, lambda barrier=barrier: f" ({machine.mbarriers.describe(barrier)})"
                )
                machine.mbarriers.wait(PhaseWait(barrier, barrier.phase, waiting, target))
        return [(block.next, going)] if going.any() else []

    return take


@opcode("fence")
def fence(machine, instruction: Instruction) -> Step:
    """Order between threads needs nothing here; order between threads' stores and asynchronous copies does."""
    modifiers = Modifiers(instruction)
    between_proxies, initialises = modifiers.flag("proxy"), modifiers.flag("mbarrier_init")
    if between_proxies and not modifiers.flag("async"):
        raise instruction.unsupported("of the fences between proxies, fence.proxy.async needed")
    of_shared = between_proxies and (modifiers.one_of("shared::cta", "shared::cluster") or not modifiers.flag("global"))
    read_order(modifiers)
    modifiers.done()

    def step(active: Active) -> None:
        if of_shared and machine.shared.shadow is not None:
            machine.shared.shadow.fence(active.mask)
        if of_shared or initialises:
            machine.mbarriers.make_visible(active.mask)

    return step
