"""4-bit codes and E4M3 bytes to floats, exactly, by moving their bits: no table, no conversion instruction of the newest GPUs."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def split_nibbles(packed):
    """int8 [..., K/2] -> the even and the odd columns, int16 0..15 each."""
    wide = packed.to(tl.int16)
    return wide & 0xF, (wide >> 4) & 0xF


@triton.jit
def int4_to_float(codes, dtype: tl.constexpr):
    """int16 two's complement nibbles -> -8..7: the bits of 2^m + code + 8, less 2^m + 8, where 2^m has a step of 1."""
    if dtype == tl.float16:
        return ((codes ^ 8) | 0x6400).to(tl.float16, bitcast=True) - 1032.0
    elif dtype == tl.bfloat16:
        return ((codes ^ 8) | 0x4300).to(tl.bfloat16, bitcast=True) - 136.0
    else:
        return ((codes.to(tl.int32) ^ 8) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0


@triton.jit
def e2m1_to_half(codes):
    """int16 0..15 -> float16. Exponent and mantissa moved to float16's places are the value times 2^-14, subnormals included."""
    bits = ((codes & 7) << 9) | ((codes & 8) << 12)
    return bits.to(tl.int16).to(tl.float16, bitcast=True) * 16384.0


@triton.jit
def e4m3_to_half(codes):
    """uint8 -> float16, NaN for the two NaNs of E4M3; exponent and mantissa moved to float16's places are the value times 2^-8."""
    wide = codes.to(tl.int16)
    bits = ((wide & 0x7F) << 7) | ((wide & 0x80) << 8)
    nan = (wide & 0x7F) == 0x7F
    return tl.where(nan, 0x7E00, bits).to(tl.int16).to(tl.float16, bitcast=True) * 256.0
