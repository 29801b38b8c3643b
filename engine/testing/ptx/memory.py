"""Memory as PTX sees it: the process's own for global data, arrays for shared and local; every access is checked."""

from __future__ import annotations

import bisect
import ctypes
from dataclasses import dataclass

import numpy as np

from .faults import LaneError
from .shadow import Shadow
from .values import POISON, Array

# Where generic addresses show shared and local memory: beyond what a 64-bit process can map.
SHARED_WINDOW = 1 << 56
LOCAL_WINDOW = 1 << 57
# Not 0, so that a null pointer is no shared address.
FIRST_ADDRESS = 1024


@dataclass(frozen=True)
class Segment:
    """One named range of the process's memory that a kernel may touch."""

    name: str
    address: int
    bytes: int
    writable: bool = True

    @property
    def end(self) -> int:
        return self.address + self.bytes


class Memory:
    """Global memory: named segments of this process, given as (name, address, bytes); what lies between them is out of bounds."""

    def __init__(self, segments: list[tuple[str, int, int]]) -> None:
        self.segments: list[Segment] = []
        self.starts: list[int] = []
        for name, address, size in segments:
            self.add(Segment(name, address, size))

    def add(self, segment: Segment) -> None:
        """Zero bytes add nothing, as PyTorch gives empty tensors no address."""
        if segment.bytes:
            at = bisect.bisect(self.starts, segment.address)
            self.starts.insert(at, segment.address)
            self.segments.insert(at, segment)

    def with_segments(self, segments: list[Segment]) -> Memory:
        wider = Memory([])
        for segment in [*self.segments, *segments]:
            wider.add(segment)
        return wider

    def view(self) -> FlatView:
        return FlatView(self)

    def containing(self, address: int, size: int) -> Segment | None:
        """The segment that holds all size bytes at address; of two that share memory, one that does."""
        for index in range(bisect.bisect(self.starts, address) - 1, -1, -1):
            if address + size <= self.segments[index].end:
                return self.segments[index]
        return None

    def nearest(self, address: int) -> str:
        """Where an address lies, in words."""
        before = [segment for segment in self.segments if segment.address <= address]
        if not self.segments:
            return "no memory is known"
        if not before:
            first = self.segments[0]
            return f"{first.address - address} bytes before {first.name}"
        last = max(before, key=lambda segment: segment.end)
        if address < last.end:
            return f"{last.end - address} bytes before the end of {last.name} ({last.bytes} bytes)"
        return f"{address - last.end} bytes beyond the end of {last.name} ({last.bytes} bytes)"


class FlatView:
    """Checked reads and writes of a Memory."""

    kind = "global"

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        low = min((segment.address for segment in memory.segments), default=0) // 16 * 16
        high = -(-max((segment.end for segment in memory.segments), default=16) // 16) * 16
        self.low = np.uint64(low)
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
        self.words = {size: self.bytes.view(f"u{size}") for size in (1, 2, 4, 8)}

    def check(self, addresses: Array, size: int, lanes: Array | slice, write: bool) -> None:
        check_alignment(self.kind, addresses, size, lanes, write)
        low, high = int(addresses.min()), int(addresses.max())
        # Nearly always one tensor holds what all lanes access.
        at = bisect.bisect(self.memory.starts, low) - 1
        if at >= 0 and high + size <= self.memory.segments[at].end and (self.memory.segments[at].writable or not write):
            return
        for index, address in enumerate(addresses.tolist()):
            segment = self.memory.containing(address, size)
            if segment is None:
                where = self.memory.nearest(address)
                raise LaneError(lane_at(lanes, index), f"global {verb(write)} of {size} bytes at {address:#x}: {where}")
            if write and not segment.writable:
                name = segment.name
                raise LaneError(lane_at(lanes, index), f"global store of {size} bytes at {address:#x}: {name} cannot be written")

    def rows(self, addresses: Array, size: int, lane: int, write: bool) -> Array:
        """[rows, size] indices into bytes, of size bytes from each address, which one lane accesses."""
        for address in addresses.tolist():
            segment = self.memory.containing(address, size)
            if segment is None or (write and not segment.writable):
                where = self.memory.nearest(address) if segment is None else f"{segment.name} cannot be written"
                raise LaneError(lane, f"global {verb(write)} of {size} bytes at {address:#x}: {where}")
        return (addresses.astype(np.int64) - int(self.low))[:, None] + np.arange(size)

    def load(self, addresses: Array, element: int, count: int, lanes: Array | slice) -> list[Array]:
        """count arrays of unsigned words of element bytes, from consecutive addresses."""
        self.check(addresses, element * count, lanes, False)
        words, first = self.words[element], (addresses - self.low) // np.uint64(element)
        return [words[first + np.uint64(index)] for index in range(count)]

    def store(self, addresses: Array, values: list[Array], lanes: Array | slice) -> None:
        element = values[0].dtype.itemsize
        self.check(addresses, element * len(values), lanes, True)
        words, first = self.words[element], (addresses - self.low) // np.uint64(element)
        for index, value in enumerate(values):
            words[first + np.uint64(index)] = value


class PrivateMemory:
    """Shared memory, one copy per block, or local memory, one per thread. owners: which copy each lane has."""

    def __init__(self, kind: str, copies: int, size: int, owners: Array) -> None:
        self.kind, self.size = kind, size
        self.stride = -(-size // 16) * 16
        self.bytes = np.empty((copies, self.stride), np.uint8)
        self.words = {element: self.bytes.reshape(-1).view(f"u{element}") for element in (1, 2, 4, 8)}
        self.base = (owners.astype(np.int64) * self.stride) - FIRST_ADDRESS
        self.shadow: Shadow | None = None
        self.poison()

    def poison(self) -> None:
        self.bytes[:] = POISON

    def position(self, addresses: Array, size: int, lanes: Array | slice, write: bool, base: Array | None = None) -> Array:
        """Index of the first byte of each access in the flat bytes. base: of the copies accessed, if they are not the lanes'."""
        check_alignment(self.kind, addresses, size, lanes, write)
        addresses = addresses.astype(np.int64)
        end = FIRST_ADDRESS + self.size
        if int(addresses.min()) < FIRST_ADDRESS or int(addresses.max()) + size > end:
            index = int(np.argmax((addresses < FIRST_ADDRESS) | (addresses + size > end)))
            offset = int(addresses[index]) - FIRST_ADDRESS
            what = f"{self.kind} {verb(write)} of {size} bytes at offset {offset}, outside of its {self.size} bytes"
            raise LaneError(lane_at(lanes, index), what)
        return addresses + (self.base[lanes] if base is None else base)

    def locate(self, addresses: Array, size: int, lanes: Array | slice, write: bool, base: Array | None = None) -> Array:
        """The position of what a thread loads or stores."""
        positions = self.position(addresses, size, lanes, write, base)
        if self.shadow is not None:
            self.shadow.access(positions, size, np.arange(len(self.base))[lanes], write)
        return positions

    def load(self, addresses: Array, element: int, count: int, lanes: Array | slice) -> list[Array]:
        first = self.locate(addresses, element * count, lanes, False) // element
        return [self.words[element][first + index] for index in range(count)]

    def store(self, addresses: Array, values: list[Array], lanes: Array | slice) -> None:
        element = values[0].dtype.itemsize
        first = self.locate(addresses, element * len(values), lanes, True) // element
        for index, value in enumerate(values):
            self.words[element][first + index] = value


def verb(write: bool) -> str:
    return "store" if write else "load"


def lane_at(lanes: Array | slice, index: int) -> int:
    return index if isinstance(lanes, slice) else int(lanes[index])


def check_alignment(kind: str, addresses: Array, size: int, lanes: Array | slice, write: bool) -> None:
    if size > 1 and int(np.bitwise_or.reduce(addresses)) & (size - 1):
        index = int(np.argmax((addresses & addresses.dtype.type(size - 1)) != 0))
        what = f"{kind} {verb(write)} of {size} bytes at {int(addresses[index]):#x}, not a multiple of {size}"
        raise LaneError(lane_at(lanes, index), what)
