"""What is under way in shared memory: bytes that asynchronous copies have yet to fill or are reading, and writes they cannot see.

Copies by the hardware (bulk copies, wgmma) see what threads wrote only after a fence.proxy.async of the writer; PTX ISA 8.6.
"""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .values import Array

CHUNK, MBARRIER = 16, 8
FREE = -1


class Shadow:
    """Of all blocks' shared memory. Positions are those of the flat bytes; chunks are of 16 bytes.

    writer: the lane whose store no fence followed, by byte. filling: whether a copy writes a chunk; reading: how many read it.
    holds_mbarrier: by eight bytes.
    """

    def __init__(self, size: int, threads: int) -> None:
        self.threads = threads
        self.writer = np.full(size, FREE, np.int32)
        self.filling, self.reading = np.zeros(size // CHUNK, bool), np.zeros(size // CHUNK, np.int16)
        self.holds_mbarrier = np.zeros(size // MBARRIER, bool)
        self.under_way = 0

    def access(self, positions: Array, size: int, lanes: Array, write: bool) -> None:
        """A thread's load or store; raises LaneError where a copy is under way there."""
        if self.under_way:
            chunks = positions // CHUNK
            self.refuse(self.filling[chunks], lanes, "that a bulk copy has yet to fill: its mbarrier phase is not complete")
            if write:
                self.refuse(self.reading[chunks] > 0, lanes, "that wgmma or a bulk copy reads: nobody waited for its group")
        barriers = self.holds_mbarrier[positions // MBARRIER] | self.holds_mbarrier[(positions + size - 1) // MBARRIER]
        self.refuse(barriers, lanes, "that holds an mbarrier")
        if write:
            self.writer[positions[:, None] + np.arange(size)] = lanes[:, None]

    def refuse(self, wrong: Array, lanes: Array, what: str) -> None:
        if wrong.any():
            raise LaneError(int(lanes[int(np.argmax(wrong))]), f"access to shared memory {what}")

    def begin_read(self, chunks: Array, lane: int, what: str) -> None:
        self.check_copy(chunks, lane, what)
        np.add.at(self.reading, chunks, 1)
        self.under_way += 1

    def end_read(self, chunks: Array) -> None:
        np.subtract.at(self.reading, chunks, 1)
        self.under_way -= 1

    def begin_fill(self, chunks: Array, lane: int, what: str, sees_stores: bool = False) -> None:
        self.check_copy(chunks, lane, what, sees_stores)
        if self.reading[chunks].any():
            raise LaneError(lane, f"{what} writes shared memory that wgmma or a bulk copy reads: nobody waited for its group")
        self.filling[chunks] = True
        self.under_way += 1

    def end_fill(self, chunks: Array) -> None:
        self.filling[chunks] = False
        self.under_way -= 1

    def check_copy(self, chunks: Array, lane: int, what: str, sees_stores: bool = False) -> None:
        if self.holds_mbarrier.reshape(-1, CHUNK // MBARRIER)[chunks].any():
            raise LaneError(lane, f"{what} of shared memory that holds an mbarrier")
        if self.filling[chunks].any():
            raise LaneError(lane, f"{what} of shared memory that a bulk copy has yet to fill: its mbarrier phase is not complete")
        unseen = self.writer.reshape(-1, CHUNK)[chunks]
        if not sees_stores and (unseen != FREE).any():
            writer = int(unseen[unseen != FREE][0]) % self.threads
            raise LaneError(lane, f"{what} of shared memory that thread {writer} wrote without a fence.proxy.async after it")

    def fence(self, mask: Array) -> None:
        """What these lanes wrote is seen from now on."""
        written = np.flatnonzero(self.writer != FREE)
        self.writer[written[mask[self.writer[written]]]] = FREE
