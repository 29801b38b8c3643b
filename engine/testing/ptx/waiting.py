"""Lanes that wait for others, and what is said when nobody can go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .faults import LaneError
from .lanes import WARP
from .syntax import Instruction
from .values import Array


@dataclass(eq=False)
class Waiting:
    """Lanes at one instruction. resume: the block where they go on; awaited: says what they wait for, empty if its line does."""

    mask: Array
    resume: int
    instruction: Instruction
    awaited: Callable[[], str] = str


class Waits:
    """Who waits, and who no longer does but has not gone on yet. threads: of one block of the grid."""

    def __init__(self, lanes: int, threads: int) -> None:
        self.threads = threads
        self.exited = np.zeros(lanes, bool)
        self.waiting: list[Waiting] = []
        self.woken: list[tuple[int, Array]] = []
        self._resumes: Array | None = None

    def add(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        self._resumes = None

    def wake(self, waiting: Waiting, mask: Array) -> None:
        """Those of the lanes in mask that wait here go on."""
        going = waiting.mask & mask
        if going.any():
            self.woken.append((waiting.resume, going))
            waiting.mask = waiting.mask & ~mask
            self._resumes = None
            if not waiting.mask.any():
                self.waiting.remove(waiting)

    def take_woken(self) -> list[tuple[int, Array]]:
        woken, self.woken = self.woken, []
        return woken

    def resumes(self) -> Array | None:
        """Of each lane: the earliest block where a lane of its warp that waits will go on; None where nobody waits."""
        if self.waiting and self._resumes is None:
            earliest = np.full(len(self.exited) // WARP, np.iinfo(np.int64).max)
            for one in self.waiting:
                np.minimum(earliest, one.resume, out=earliest, where=one.mask.reshape(-1, WARP).any(1))
            self._resumes = earliest.repeat(WARP)
        return self._resumes if self.waiting else None

    def has_exited(self, block: int) -> bool:
        return bool(self.exited[block * self.threads : (block + 1) * self.threads].all())

    def raise_if_stuck(self) -> None:
        """Nobody can run: raise LaneError for one who waits, saying where the others of its block are."""
        if not self.waiting:
            return
        first = self.waiting[0]
        lane = int(np.argmax(first.mask))
        block = slice(lane // self.threads * self.threads, (lane // self.threads + 1) * self.threads)
        here = [(one, int(one.mask[block].sum())) for one in self.waiting]
        groups = [f"{count} threads wait at line {one.instruction.line}{one.awaited()}" for one, count in here if count]
        gone = int(self.exited[block].sum())
        ended = [f"{gone} threads have returned"] if gone else []
        what = "divergent barrier" if all(one.instruction.opcode in ("bar", "barrier") for one in self.waiting) else "deadlock"
        raise LaneError(lane, f"{what}: {', '.join([*groups, *ended])}", first.instruction)
