"""Tensor maps as the host shim lays them out, and the boxes they cut from global memory; PTX ISA 5.5, CUDA driver API 6.29."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .swizzle import SPANS
from .values import Array

BYTES = 128
# Ours: nobody says how a driver packs a CUtensorMap. csrc/cuda builds this one where there is no driver.
LAYOUT = struct.Struct("<QII5Q4Q5IIIIII")
MARK = 0x50414D54


@dataclass(frozen=True)
class TensorMap:
    """dims and box: elements, innermost first; strides: bytes of each dimension; swizzle: its span in bytes, 16 for none."""

    address: int
    element: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 16

    @property
    def row_bytes(self) -> int:
        return self.box[0] * self.element

    @property
    def box_bytes(self) -> int:
        return int(np.prod(self.box)) * self.element

    def flaw(self) -> str | None:
        """What is wrong with the map, in one sentence."""
        if self.address % 16 or any(stride % 16 for stride in self.strides[1:]):
            return f"address {self.address:#x} and strides {self.strides[1:]} that are multiples of 16 needed"
        if self.row_bytes % 16 or not all(0 < extent <= 256 for extent in self.box):
            return f"a box of 1 to 256 elements a side and rows of a multiple of 16 bytes needed, got {self.box}"
        if self.swizzle > 16 and self.row_bytes != self.swizzle:
            return f"box rows of the swizzle's {self.swizzle} bytes needed, got {self.row_bytes}"
        if not all(extent > 0 for extent in self.dims):
            return f"dimensions above zero needed, got {self.dims}"
        return None

    def encode(self) -> bytes:
        rank = len(self.dims)
        fill = lambda values, count, with_: (*values, *[with_] * (count - len(values)))  # noqa: E731
        return LAYOUT.pack(
            self.address, rank, self.element, *fill(self.dims, 5, 1), *fill(self.strides[1:], 4, 0), *fill(self.box, 5, 1),
            SPANS.index(self.swizzle), 0, 0, 0, MARK,
        )  # fmt: skip

    def rows(self, start: tuple[int, ...]) -> tuple[Array, int, int, Array]:
        """Rows of the box at some coordinates: the address of each, first and last byte inside of the tensor, which rows are."""
        outer = np.indices(self.box[:0:-1]).reshape(len(self.box) - 1, -1)[::-1]
        addresses = np.full(outer.shape[1], self.address + start[0] * self.element, np.int64)
        inside = np.ones(outer.shape[1], bool)
        for index, first, extent, stride in zip(outer, start[1:], self.dims[1:], self.strides[1:]):
            addresses += (index + first) * stride
            inside &= (index + first >= 0) & (index + first < extent)
        first, last = (min(max(edge, 0), self.box[0]) for edge in (-start[0], self.dims[0] - start[0]))
        return addresses, first * self.element, last * self.element, inside & (last > first)


@lru_cache(maxsize=64)
def decode(data: bytes) -> TensorMap:
    """Raises ValueError for what is no map, or one that no GPU takes."""
    fields = LAYOUT.unpack(data)
    address, rank, element = fields[:3]
    dims, strides, box = fields[3:8], fields[8:12], fields[12:17]
    swizzle, interleave, fill, _, mark = fields[17:]
    if mark != MARK or not 1 <= rank <= 5 or swizzle >= len(SPANS):
        raise ValueError("no tensor map is there")
    if interleave or fill:
        raise ValueError("a tensor map without interleave that fills with zeros needed")
    map = TensorMap(address, element, dims[:rank], (element, *strides[: rank - 1]), box[:rank], SPANS[swizzle])
    if flaw := map.flaw():
        raise ValueError(f"tensor map: {flaw}")
    return map
