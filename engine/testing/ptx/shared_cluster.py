"""Shared memory of a whole cluster: above bit 24 an address holds the rank of a block plus one, or zero for the thread's own."""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .memory import FIRST_ADDRESS
from .values import Array

RANK_SHIFT = 24


class ClusterShared:
    """The shared memory of each lane's cluster."""

    def __init__(self, machine) -> None:
        self.machine = machine

    def blocks(self, addresses: Array, lanes: Array) -> Array:
        """The block of the batch that each address points to; raises LaneError for one that is not there."""
        rank = (addresses.astype(np.int64) >> RANK_SHIFT) - 1
        own, size = lanes // self.machine.threads, self.machine.cluster_size
        if (rank >= size).any():
            index = int(np.argmax(rank >= size))
            raise LaneError(int(lanes[index]), f"shared memory of block {int(rank[index])} of a cluster of {size}")
        blocks = np.where(rank < 0, own, own // size * size + rank)
        for block in np.unique(blocks[blocks != own]).tolist():
            if self.machine.waits.has_exited(block):
                lane = int(lanes[int(np.argmax(blocks == block))])
                raise LaneError(lane, f"shared memory of block {block % size} of the cluster, all of whose threads have returned")
        return blocks

    def position(self, addresses: Array, size: int, lanes: Array | slice, write: bool) -> Array:
        """See PrivateMemory.position."""
        return self.machine.shared.position(*self.own(addresses, size, lanes, write))

    def locate(self, addresses: Array, size: int, lanes: Array | slice, write: bool) -> Array:
        return self.machine.shared.locate(*self.own(addresses, size, lanes, write))

    def own(self, addresses: Array, size: int, lanes: Array | slice, write: bool):
        """The arguments of the same access in the addresses of the block it goes to."""
        if int(addresses.max()) >> RANK_SHIFT == 0:
            return addresses, size, lanes, write, None
        base = self.blocks(addresses, np.arange(self.machine.lanes)[lanes]) * self.machine.shared.stride - FIRST_ADDRESS
        return addresses & addresses.dtype.type((1 << RANK_SHIFT) - 1), size, lanes, write, base

    def load(self, addresses: Array, element: int, count: int, lanes: Array | slice) -> list[Array]:
        first = self.locate(addresses, element * count, lanes, False) // element
        return [self.machine.shared.words[element][first + index] for index in range(count)]

    def store(self, addresses: Array, values: list[Array], lanes: Array | slice) -> None:
        element = values[0].dtype.itemsize
        first = self.locate(addresses, element * len(values), lanes, True) // element
        for index, value in enumerate(values):
            self.machine.shared.words[element][first + index] = value
