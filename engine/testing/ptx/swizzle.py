"""Where a chunk of 16 bytes lies in shared memory under a swizzle; PTX ISA 5.5.6 and 9.7.15.5."""

from __future__ import annotations

from .values import Array

# Bytes of a row under each; the pattern repeats after eight times as many.
SPANS = (16, 32, 64, 128)
NONE, SPAN_32, SPAN_64, SPAN_128 = SPANS


def swizzled(address: Array, span: int) -> Array:
    """Bits from 7 on are added, without carry, to those from 4 on: as many as count the chunks of a row."""
    return address ^ ((address >> 7 & (span // 16 - 1)) << 4)
