"""Bulk copies under way. They are done as late as anyone can tell: loads when a thread waits for their mbarrier and nobody else
can run, stores to global memory when the thread that issued them waits for their group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .async_copy import PENDING
from .faults import LaneError
from .mbarriers import MBarrier
from .shadow import CHUNK
from .syntax import Instruction
from .values import Array


@dataclass(eq=False)
class _Load:
    """A copy to the shared memory of one block; data: its chunks."""

    lane: int
    instruction: Instruction
    barrier: MBarrier
    chunks: Array
    data: Array


@dataclass(eq=False)
class _Store:
    """A copy from shared memory; write: does it; group: the number of its lane's group."""

    lane: int
    instruction: Instruction
    group: int
    chunks: Array
    write: Callable[[], None]


class BulkCopies:
    """Of a batch of blocks. committed: how many groups of stores each lane has committed."""

    def __init__(self, machine) -> None:
        self.machine = machine
        self.committed = np.zeros(machine.lanes, np.int64)
        self.loads: list[_Load] = []
        self.stores: list[_Store] = []

    def load(self, lane: int, instruction: Instruction, barrier: MBarrier, chunks: Array, data: Array) -> None:
        """Chunks of shared memory are to be filled with data; they hold poison until the barrier's phase is complete.

        st.async does so too, and belongs to the threads' own stores.
        """
        by_store = instruction.opcode == "st"
        self.machine.shared.shadow.begin_fill(chunks, lane, "st.async" if by_store else "a bulk copy", by_store)
        self.memory[chunks] = PENDING
        self.loads.append(_Load(lane, instruction, barrier, chunks, data))

    def store(self, lane: int, instruction: Instruction, chunks: Array, write: Callable[[Array], None]) -> None:
        """Chunks of shared memory are read, and written by `write` later."""
        self.machine.shared.shadow.begin_read(chunks, lane, "a bulk copy")
        data = self.memory[chunks]
        self.stores.append(_Store(lane, instruction, int(self.committed[lane]), chunks, lambda: write(data)))

    @property
    def memory(self) -> Array:
        return self.machine.shared.bytes.reshape(-1, CHUNK)

    def land_awaited(self) -> bool:
        """Complete the oldest load that somebody waits for; whether there was one."""
        awaited = {id(wait.barrier) for wait in self.machine.mbarriers.waits}
        load = next((one for one in self.loads if id(one.barrier) in awaited), None)
        if load is None:
            return False
        self.loads.remove(load)
        load.barrier.on_completion.append(lambda: self.show(load))
        self.machine.mbarriers.expect(load.barrier, -load.data.size, load.lane)
        self.machine.mbarriers.check(load.barrier)
        return True

    def show(self, load: _Load) -> None:
        self.machine.shared.shadow.end_fill(load.chunks)
        self.memory[load.chunks] = load.data

    def wait(self, mask: Array, pending_groups: int) -> None:
        """Finish all but the newest pending_groups committed groups of the lanes in mask."""
        for store in list(self.stores):
            if mask[store.lane] and store.group < self.committed[store.lane] - pending_groups:
                store.write()
                self.machine.shared.shadow.end_read(store.chunks)
                self.stores.remove(store)

    def raise_if_left(self) -> None:
        """All threads have returned: raise LaneError for a copy that still uses their shared memory."""
        left = [(one, "its mbarrier phase") for one in self.loads] + [(one, "its group") for one in self.stores]
        for copy, what in left[:1]:
            raise LaneError(copy.lane, f"all threads returned during this bulk copy: nobody waited for {what}", copy.instruction)
