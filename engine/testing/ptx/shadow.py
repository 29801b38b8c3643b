"""What is under way in shared memory: bytes that asynchronous copies have yet to fill or are reading, and writes they cannot see.

Copies by the hardware (bulk copies, wgmma) see what threads wrote only after a fence.proxy.async of the writer; PTX ISA 8.6.
"""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .values import Array

CHUNK = 16
FREE = -1


class Shadow:
    """Of all blocks' shared memory. Positions are those of the flat bytes; chunks are of 16 bytes.

    writer: the lane whose store no fence followed, by byte. filling: how many copies write a chunk; reading: how many read it.
    """

    def __init__(self, size: int, threads: int) -> None:
        self.threads = threads
        self.writer = np.full(size, FREE, np.int32)
        self.filling, self.reading = (np.zeros(size // CHUNK, np.int16) for _ in range(2))
        self.under_way = 0

    def access(self, positions: Array, size: int, lanes: Array, write: bool) -> None:
        """A thread's load or store; raises LaneError where a copy is under way there."""
        if self.under_way:
            chunks = positions // CHUNK
            self.refuse(self.filling[chunks] > 0, lanes, "that a bulk copy has yet to fill: its mbarrier phase is not complete")
            if write:
                self.refuse(self.reading[chunks] > 0, lanes, "that wgmma or a bulk copy reads: nobody waited for its group")
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

    def begin_fill(self, chunks: Array, lane: int, what: str) -> None:
        self.check_copy(chunks, lane, what)
        if self.reading[chunks].any():
            raise LaneError(lane, f"{what} writes shared memory that wgmma or a bulk copy reads: nobody waited for its group")
        self.filling[chunks] = 1
        self.under_way += 1

    def end_fill(self, chunks: Array) -> None:
        self.filling[chunks] = 0
        self.under_way -= 1

    def check_copy(self, chunks: Array, lane: int, what: str) -> None:
        if self.filling[chunks].any():
            raise LaneError(lane, f"{what} of shared memory that a bulk copy has yet to fill: its mbarrier phase is not complete")
        unseen = self.writer.reshape(-1, CHUNK)[chunks]
        if (unseen != FREE).any():
            writer = int(unseen[unseen != FREE][0]) % self.threads
            raise LaneError(lane, f"{what} of shared memory that thread {writer} wrote without a fence.proxy.async after it")

    def fence(self, mask: Array) -> None:
        """What these lanes wrote is seen from now on."""
        written = np.flatnonzero(self.writer != FREE)
        self.writer[written[mask[self.writer[written]]]] = FREE
