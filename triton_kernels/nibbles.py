"""4-bit codes and E4M3 bytes to 16-bit floats, exactly, by moving their bits.

Four packed bytes lie in one register, so on GPUs the moves are of registers; the interpreter takes the same steps by element.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

NIBBLES_AT_TOP = tl.constexpr("""{
    .reg .b32 up;
    shl.b32 up, $2, 4;
    and.b32 $0, up, 0xF0F0F0F0;
    and.b32 $1, $2, 0xF0F0F0F0;
}""")

# Bytes 0 and 1, then 2 and 3, each in 16 bits of its own.
WIDEN = """
    .reg .b32 low, high, sign;
    prmt.b32 low, $4, 0, 0x4140;
    prmt.b32 high, $4, 0, 0x4342;
"""


def int4_bits(ones: str) -> str:
    """(byte & 15) ^ (ones + 8), for the low and the high nibbles."""
    steps = [f"lop3.b32 ${{}}, {{}}, 0x000F000F, 0x{ones}08{ones}08, 0x6A;"] * 4
    low, high, low_shifted, high_shifted = (step.format(i, "low" if i % 2 == 0 else "high") for i, step in enumerate(steps))
    shift = "shr.u32 low, low, 4; shr.u32 high, high, 4;"
    return "{" + WIDEN + "\n    ".join((low, high, shift, low_shifted, high_shifted)) + "}"


def e2m1_bits() -> str:
    """Exponent and mantissa at bit 9 and the sign at bit 15, for the low and the high nibbles."""
    moves = []
    for i, (word, shift, sign_shift) in enumerate((("low", 9, 12), ("high", 9, 12), ("low", 5, 8), ("high", 5, 8))):
        moves += [f"shl.b32 ${i}, {word}, {shift};", f"shl.b32 sign, {word}, {sign_shift};", "and.b32 sign, sign, 0x80008000;"]
        moves += [f"lop3.b32 ${i}, ${i}, 0x0E000E00, sign, 0xEA;"]
    return "{" + WIDEN + "\n    ".join(moves) + "}"


INT4_TO_FLOAT16, INT4_TO_BFLOAT16 = tl.constexpr(int4_bits("64")), tl.constexpr(int4_bits("43"))
E2M1_TO_FLOAT16 = tl.constexpr(e2m1_bits())


@triton.jit
def nibbles_at_top(packed):
    """int8 [..., K/2] of signed codes -> even and odd columns times 16, int8 each: no sign needs extending."""
    if INTERPRETED:
        return (packed << 4).to(tl.int8), (packed & -16).to(tl.int8)
    else:
        types: tl.constexpr = (tl.int8, tl.int8)
        return tl.inline_asm_elementwise(NIBBLES_AT_TOP, "=r,=r,r", [packed], types, is_pure=True, pack=4)


@triton.jit
def four_bytes_to_bits(packed, ASM: tl.constexpr):
    types: tl.constexpr = (tl.int16, tl.int16)
    return tl.inline_asm_elementwise(ASM, "=&r,=&r,=&r,=&r,r", [packed], types, is_pure=True, pack=4)


@triton.jit
def int4_to_halves(packed, dtype: tl.constexpr):
    """int8 [..., K/2] of signed codes -> even and odd columns in float16 or bfloat16.

    The bits of 2^m + code + 8, where 2^m has a step of 1, less 2^m + 8.
    """
    ones: tl.constexpr = 0x6408 if dtype == tl.float16 else 0x4308
    offset: tl.constexpr = 1032.0 if dtype == tl.float16 else 136.0
    if INTERPRETED:
        wide = packed.to(tl.int16)
        even, odd = (wide & 0xF) ^ ones, ((wide >> 4) & 0xF) ^ ones
    elif dtype == tl.float16:
        even, odd = four_bytes_to_bits(packed, INT4_TO_FLOAT16)
    else:
        even, odd = four_bytes_to_bits(packed, INT4_TO_BFLOAT16)
    return even.to(tl.int16).to(dtype, bitcast=True) - offset, odd.to(tl.int16).to(dtype, bitcast=True) - offset


@triton.jit
def e2m1_to_halves(packed):
    """int8 [..., K/2] -> even and odd columns in float16: its bits are those of the value times 2^-14, subnormals included."""
    if INTERPRETED:
        wide = packed.to(tl.int16)
        even, odd = ((wide & 7) << 9) | ((wide & 8) << 12), ((wide & 0x70) << 5) | ((wide & 0x80) << 8)
    else:
        even, odd = four_bytes_to_bits(packed, E2M1_TO_FLOAT16)
    even, odd = even.to(tl.int16).to(tl.float16, bitcast=True), odd.to(tl.int16).to(tl.float16, bitcast=True)
    return even * 16384.0, odd * 16384.0


@triton.jit
def e4m3_to_half(codes):
    """uint8 -> float16, NaN for E4M3's two NaNs: exponent and mantissa at float16's places are the value times 2^-8."""
    wide = codes.to(tl.int16)
    bits = ((wide & 0x7F) << 7) | ((wide & 0x80) << 8)
    nan = (wide & 0x7F) == 0x7F
    return tl.where(nan, 0x7E00, bits).to(tl.int16).to(tl.float16, bitcast=True) * 256.0


@triton.jit
def int4_to_float(codes):
    """int32 two's complement nibbles -> float32 -8..7, by the bits of 2^23 + code + 8."""
    return ((codes & 0xF) ^ 0x4B000008).to(tl.float32, bitcast=True) - 8388616.0


@triton.jit
def e2m1_to_float(codes):
    """int32 nibbles -> float32."""
    bits = ((codes & 7) << 9) | ((codes & 8) << 12)
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * 16384.0
