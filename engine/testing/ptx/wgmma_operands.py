"""What wgmma multiplies: matrices in shared memory by descriptor, and fragments in registers; PTX ISA 9.7.15.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .faults import LaneError
from .shadow import CHUNK
from .swizzle import SPANS, swizzled
from .values import Array

# Bytes of K in one instruction, whatever the type.
K_BYTES = 32
ROWS_OF_CORE = 8


@dataclass(frozen=True)
class Descriptor:
    """leading, stride: bytes from a core matrix to the next one.

    K-major: leading between the two 16-byte columns without a swizzle, stride from 8 rows to the next 8. Else stride from 8
    columns of K to the next 8 and leading from one span of rows to the next, and without a swizzle the other way round.
    """

    address: int
    leading: int
    stride: int
    span: int

    @classmethod
    def decode(cls, bits: int, lane: int) -> Descriptor:
        """Raises LaneError for what is no descriptor of a matrix aligned to its swizzle."""
        address, leading, stride = ((bits >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
        span = (SPANS[0], SPANS[3], SPANS[2], SPANS[1])[bits >> 62]
        if bits >> 49 & 7:
            raise LaneError(lane, f"a wgmma descriptor with base offset 0 needed, got {bits >> 49 & 7}")
        if span > CHUNK and address % (ROWS_OF_CORE * span) >= span:
            what = f"a wgmma matrix with a swizzle of {span} bytes at shared address {address:#x}, not in the first row of"
            raise LaneError(lane, f"{what} a pattern, which repeats every {ROWS_OF_CORE * span} bytes")
        return cls(address, leading, stride, span)

    def chunks(self, rows: int) -> Array:
        """[rows, 2] shared addresses of the 16-byte chunks of a matrix of 32 bytes of K."""
        row, column = np.arange(rows)[:, None], np.arange(K_BYTES // CHUNK)[None, :]
        start = self.address + row // ROWS_OF_CORE * self.stride
        if self.span == CHUNK:
            return start + row % ROWS_OF_CORE * CHUNK + column * self.leading
        return swizzled(start + row % ROWS_OF_CORE * self.span + column * CHUNK, self.span)

    def chunks_across(self, rows: int) -> Array:
        """[16, rows / 8] shared addresses of the chunks of 8 rows of a 16-bit matrix whose rows are neighbours."""
        k, chunk = np.arange(K_BYTES // 2)[:, None], np.arange(rows // ROWS_OF_CORE)[None, :]
        in_span = self.span // CHUNK
        to_rows, to_k = (self.stride, self.leading) if self.span == CHUNK else (self.leading, self.stride)
        start = self.address + k // ROWS_OF_CORE * to_k + chunk // in_span * to_rows
        return swizzled(start + k % ROWS_OF_CORE * self.span + chunk % in_span * CHUNK, self.span)


def matrix_in_shared(machine, bits: Array, first_lane: int, rows: int, across: bool) -> tuple[Array, Array]:
    """Words [rows, 8] of the matrix of a descriptor that all lanes of a warpgroup gave, and the chunks it lies in.

    across: its rows, not its columns of K, are neighbours.
    """
    if (bits != bits[0]).any():
        lane = first_lane + int(np.argmax(bits != bits[0]))
        raise LaneError(lane, "another wgmma descriptor than that of the warpgroup's first thread")
    descriptor = Descriptor.decode(int(bits[0]), first_lane)
    addresses = descriptor.chunks_across(rows) if across else descriptor.chunks(rows)
    lanes = np.full(addresses.size, first_lane)
    positions = machine.shared.position(addresses.reshape(-1), CHUNK, lanes, False)
    chunks = (positions // CHUNK).reshape(addresses.shape)
    content = machine.shared.bytes.reshape(-1, CHUNK)[chunks]
    if across:
        content = np.ascontiguousarray(content.view(np.uint16).reshape(-1, rows).T).view(np.uint8)
    return content.reshape(rows, K_BYTES).view(np.uint32), chunks.reshape(-1)


def sums_from_registers(registers: Array) -> Array:
    """[N / 2, 128] registers of a warpgroup to [64, N]."""
    columns = registers.shape[0] // 4
    return registers.reshape(columns, 2, 2, 4, 8, 4).transpose(3, 1, 4, 0, 5, 2).reshape(64, 8 * columns)


def sums_to_registers(sums: Array) -> Array:
    """The inverse: register i of thread 32w + 4g + q holds row 16w + g + 8(i / 2 % 2), column 8(i / 4) + 2q + i % 2."""
    columns = sums.shape[1] // 8
    return sums.reshape(4, 2, 8, columns, 4, 2).transpose(3, 1, 5, 0, 2, 4).reshape(4 * columns, 128)
