"""cp.async: copies to shared memory whose destination holds poison until the thread that issued them waits; PTX ISA 9.7.9.25."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bulk_copy import bulk
from .memory import PrivateMemory
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .tensor_copy import tensor_copy
from .values import Array

PENDING = 0xEE


@dataclass
class _Copy:
    """One cp.async of some lanes: their groups, where in shared memory it goes, and the bytes."""

    lanes: Array
    groups: Array
    destinations: Array
    data: Array


class AsyncCopies:
    """The copies in flight. committed: how many groups each lane has committed, thus the number of the group it fills."""

    def __init__(self, lanes: int) -> None:
        self.committed = np.zeros(lanes, np.int64)
        self.in_flight: list[_Copy] = []

    def complete(self, shared: PrivateMemory, mask: Array, pending_groups: int) -> None:
        """Finish all but the newest pending_groups committed groups of the lanes in mask, oldest first."""
        left = []
        for copy in self.in_flight:
            done = mask[copy.lanes] & (copy.groups < self.committed[copy.lanes] - pending_groups)
            shared.words[1][copy.destinations[done]] = copy.data[done]
            if shared.shadow is not None:
                shared.shadow.writer[copy.destinations[done]] = copy.lanes[done, None]
            if not done.all():
                left.append(_Copy(copy.lanes[~done], copy.groups[~done], copy.destinations[~done], copy.data[~done]))
        self.in_flight = left


@opcode("cp")
def cp(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    if not modifiers.flag("async"):
        raise instruction.unsupported("only cp.async is known here")
    if modifiers.flag("bulk"):
        return (tensor_copy if modifiers.flag("tensor") else bulk)(machine, instruction, modifiers)
    if modifiers.flag("commit_group"):
        modifiers.done()
        return lambda active: np.add(machine.copies.committed, 1, out=machine.copies.committed, where=active.where)
    if modifiers.flag("wait_group"):
        modifiers.done()
        pending = int(instruction.operands[0], 0)
        return lambda active: machine.copies.complete(machine.shared, active.mask, pending)
    if modifiers.flag("wait_all"):
        modifiers.done()
        return lambda active: wait_all(machine, active)
    return copy(machine, instruction, modifiers)


def wait_all(machine, active) -> None:
    np.add(machine.copies.committed, 1, out=machine.copies.committed, where=active.where)
    machine.copies.complete(machine.shared, active.mask, 0)


def copy(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    if modifiers.one_of("ca", "cg") is None or not (modifiers.one_of("shared", "shared::cta") and modifiers.flag("global")):
        raise instruction.unsupported("cp.async.ca or .cg from global to shared memory needed")
    modifiers.one_of("L2::64B", "L2::128B", "L2::256B")
    modifiers.done()
    destination, destination_offset = machine.address(instruction, instruction.operands[0])
    source, source_offset = machine.address(instruction, instruction.operands[1])
    size = int(instruction.operands[2], 0)
    operands = instruction.operands[3:]
    source_size = machine.source(instruction, operands[0] if operands else str(size), "u32")
    within = np.arange(size)

    def step(active) -> None:
        lanes = np.flatnonzero(active.mask)
        to = machine.shared.locate(destination[lanes] + destination_offset, size, lanes, True)
        to = to[:, None] + within
        data = np.zeros((len(lanes), size), np.uint8)
        for read in np.unique(source_size[lanes]).tolist():
            # A lane that reads nothing may point anywhere.
            if read:
                chosen = np.flatnonzero(source_size[lanes] == read)
                data[chosen, :read] = read_bytes(machine, source[lanes[chosen]] + source_offset, size, read, lanes[chosen])
        machine.shared.words[1][to] = PENDING
        machine.copies.in_flight.append(_Copy(lanes, machine.copies.committed[lanes].copy(), to, data))

    return step


def read_bytes(machine, addresses: Array, size: int, read: int, lanes: Array) -> Array:
    """The first read of size bytes at each address."""
    if read == size:
        return np.stack(machine.memory.load(addresses, min(size, 8), max(size // 8, 1), lanes), 1).view(np.uint8)
    return np.stack([machine.memory.load(addresses + np.uint64(index), 1, 1, lanes)[0] for index in range(read)], 1)
