"""mbarrier objects and who waits for their phases; PTX ISA 9.7.13.15."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .faults import LaneError
from .values import Array
from .waiting import Waiting

BYTES = 8


@dataclass(eq=False)
class MBarrier:
    """expected: arrivals of a phase, pending: those missing; tx: bytes missing; phase: how many are complete.

    visible: whether a fence followed its initialisation by thread `creator`. on_completion: what the copies that are done leave
    for the end of the phase.
    """

    block: int
    offset: int
    creator: int
    expected: int
    pending: int
    tx: int = 0
    phase: int = 0
    visible: bool = False
    on_completion: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False)
class PhaseWait:
    """Lanes that wait until more than `phase` phases are complete; target: their predicate."""

    barrier: MBarrier
    phase: int
    waiting: Waiting
    target: Array


class MBarriers:
    """All of a batch, by position in the flat bytes of shared memory. events: counts what may let somebody go on."""

    def __init__(self, machine) -> None:
        self.machine = machine
        self.by_position: dict[int, MBarrier] = {}
        self.waits: list[PhaseWait] = []
        self.events = 0
        self.events_at_time_out = -1

    def init(self, position: int, count: int, lane: int) -> None:
        if position in self.by_position:
            raise LaneError(lane, "mbarrier.init of an mbarrier that was not invalidated")
        if not 0 < count < 1 << 20:
            raise LaneError(lane, f"mbarrier.init: a count from 1 to 2^20 - 1 needed, got {count}")
        stride = self.machine.shared.stride
        self.by_position[position] = MBarrier(position // stride, position % stride, lane, count, count)
        self.mark(position, True)

    def invalidate(self, position: int, lane: int) -> None:
        self.at(position, lane)
        del self.by_position[position]
        self.mark(position, False)

    def mark(self, position: int, holds: bool) -> None:
        if self.machine.shared.shadow is not None:
            self.machine.shared.shadow.holds_mbarrier[position // BYTES] = holds

    def at(self, position: int, lane: int, from_outside: bool = False) -> MBarrier:
        """from_outside: other blocks of the cluster, or copies that may go there, reach it."""
        barrier = self.by_position.get(position)
        if barrier is None:
            raise LaneError(lane, f"no mbarrier was initialised at offset {position % self.machine.shared.stride}")
        if from_outside and not barrier.visible:
            thread = barrier.creator % self.machine.threads
            what = f"thread {thread} initialised this mbarrier without a fence.mbarrier_init or fence.proxy.async after it"
            raise LaneError(lane, what)
        return barrier

    def describe(self, barrier: MBarrier) -> str:
        where = f"mbarrier at offset {barrier.offset} of {self.machine.block_at(barrier.block)}, phase {barrier.phase}"
        return f"{where}: {barrier.pending} of {barrier.expected} arrivals and {barrier.tx} bytes missing"

    def make_visible(self, mask: Array) -> None:
        for barrier in self.by_position.values():
            barrier.visible = barrier.visible or bool(mask[barrier.creator])

    def arrive(self, barrier: MBarrier, count: int, lane: int) -> int:
        """The phase before it."""
        if count > barrier.pending:
            what = f"{count} arrivals at an mbarrier that expects no more than {barrier.pending}: {self.describe(barrier)}"
            raise LaneError(lane, what)
        phase, barrier.pending = barrier.phase, barrier.pending - count
        self.check(barrier)
        return phase

    def expect(self, barrier: MBarrier, bytes: int, lane: int) -> None:
        """More bytes are missing, or fewer."""
        barrier.tx += bytes
        if abs(barrier.tx) >= 1 << 20:
            raise LaneError(lane, f"a count of {barrier.tx} bytes at an mbarrier, which holds less than 2^20")

    def check(self, barrier: MBarrier) -> None:
        """Begin the next phase where this one is complete."""
        self.events += 1
        if barrier.pending or barrier.tx:
            return
        barrier.phase, barrier.pending = barrier.phase + 1, barrier.expected
        done, barrier.on_completion = barrier.on_completion, []
        for action in done:
            action()
        for wait in [one for one in self.waits if one.barrier is barrier and one.phase < barrier.phase]:
            self.release(wait, True)

    def wait(self, wait: PhaseWait) -> None:
        self.waits.append(wait)
        self.machine.waits.add(wait.waiting)

    def release(self, wait: PhaseWait, value: bool) -> None:
        self.waits.remove(wait)
        wait.target[wait.waiting.mask] = value
        self.machine.waits.wake(wait.waiting, wait.waiting.mask)

    def time_out(self) -> None:
        """Nobody can run. A try_wait may give up: once, until something has happened again."""
        if self.events != self.events_at_time_out:
            self.events_at_time_out = self.events
            for wait in list(self.waits):
                self.release(wait, False)


def groups_of(positions: Array, *keys: Array):
    """(position, keys, indices) of the lanes that agree in them."""
    rows = np.stack([positions, *(key.astype(np.int64) for key in keys)], 1)
    values, inverse = np.unique(rows, axis=0, return_inverse=True)
    for index, value in enumerate(values.tolist()):
        yield value, np.flatnonzero(inverse.reshape(-1) == index)
