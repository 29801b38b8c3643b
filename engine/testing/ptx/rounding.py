"""Correctly rounded floating point: an exact value as a float64 and what it lacks, then one rounding; PTX ISA 9.7.3.

Rounding to odd makes a second rounding exact (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

import numpy as np

from .values import Array

ROUNDINGS = ("rn", "rz", "rm", "rp")
NAN_F32 = np.uint32(0x7FFFFFFF).view(np.float32)
LOWEST_28 = np.uint64((1 << 28) - 1)


def exact_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """float64 sum and its error, which is exact for finite sums (Knuth's two-sum)."""
    total = x + y
    back = total - x
    error = (x - (total - back)) + (y - back)
    return total, np.where(np.isfinite(total), error, 0.0)


def to_odd(total: Array, error: Array) -> Array:
    """total + error, rounded to odd in float64."""
    bits = np.ascontiguousarray(total).view(np.uint64)
    move = (error != 0) & ((bits & np.uint64(1)) == 0)
    return np.where(move, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)


def fma_f32(x: Array, y: Array, z: Array, rounding: str) -> Array:
    """float32 x * y + z with one rounding."""
    product = np.multiply(x, y, dtype=np.float64)
    if rounding != "rn":
        return directed_sum(product, z.astype(np.float64), rounding)
    total = product + z
    # Rounding twice can only differ where the float64 sum lies on or by a tie of float32, whose lowest 28 bits are all zero.
    if ((total.view(np.uint64) & LOWEST_28) == 0).any():
        total = to_odd(*exact_sum(product, z.astype(np.float64)))
    return total.astype(np.float32)


def directed_sum(x: Array, y: Array, rounding: str) -> Array:
    """float64 x + y to float32, towards zero or an infinity; what cancels gives -0 where sums round down (IEEE 754, 6.3)."""
    total, error = exact_sum(x, y)
    result = round_f32(total, error, rounding)
    negative = (total == 0) & (np.signbit(x) | np.signbit(y)) & (rounding == "rm")
    return np.where(negative, np.float32(-0.0), result)


def round_f32(total: Array, error: Array | float, rounding: str) -> Array:
    """total + error to float32; error at most half a unit in the last place of the float64 total."""
    error = np.broadcast_to(error, total.shape)
    if rounding == "rn":
        return to_odd(total, error).astype(np.float32)
    nearest = total.astype(np.float32)
    above = (nearest > total) | ((nearest == total) & (error < 0))
    below = (nearest < total) | ((nearest == total) & (error > 0))
    positive = (total > 0) | ((total == 0) & (error > 0))
    down = above & ((rounding == "rm") | ((rounding == "rz") & positive))
    up = below & ((rounding == "rp") | ((rounding == "rz") & ~positive))
    finite = np.isfinite(total)
    result = np.where(down & finite, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return np.where(up & finite, np.nextafter(nearest, np.float32(np.inf)), result)


def narrow(x: Array, exponent_bits: int, mantissa_bits: int, to_zero: bool = False) -> Array:
    """|x|, float64, as the code of a float of that many bits, ties to even.

    Codes go on beyond the largest exponent, so the caller clamps them. Infinity gives a code above all, NaN one of no meaning.
    """
    bias = (1 << (exponent_bits - 1)) - 1
    magnitude = np.abs(x)
    usable = np.isfinite(magnitude) & (magnitude > 0)
    _, exponent = np.frexp(np.where(usable, magnitude, 2.0**-1000))
    exponent = np.maximum(exponent - 1, 1 - bias)
    steps = np.ldexp(np.where(usable, magnitude, 0.0), mantissa_bits - exponent)
    steps = (np.floor(steps) if to_zero else np.rint(steps)).astype(np.int64)
    code = steps + ((exponent.astype(np.int64) + bias - 1) << mantissa_bits)
    return np.where(np.isinf(magnitude), np.int64(1) << 40, code)


def half_bits(x: Array, exponent_bits: int, to_zero: bool) -> Array:
    """float64 to a 16-bit float with infinities; NaN becomes 0x7fff."""
    mantissa_bits = 15 - exponent_bits
    infinity = ((1 << exponent_bits) - 1) << mantissa_bits
    largest = np.where(np.isinf(x), infinity, infinity - 1) if to_zero else infinity
    code = np.minimum(narrow(x, exponent_bits, mantissa_bits, to_zero), largest)
    return np.where(np.isnan(x), 0x7FFF, code | (np.signbit(x).astype(np.int64) << 15)).astype(np.uint16)


def to_bf16(x: Array, to_zero: bool = False) -> Array:
    """float64 (exact, or rounded to odd) to bfloat16 bits."""
    return half_bits(x, 8, to_zero)


def to_f16(x: Array, to_zero: bool = False) -> Array:
    """float64 (exact, or rounded to odd) to float16."""
    return half_bits(x, 5, to_zero).view(np.float16)


def from_bf16(bits: Array) -> Array:
    """bfloat16 bits to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def canonical(x: Array) -> Array:
    """NaN as PTX writes it: 0x7fffffff in float32, 0x7fff in float16; float64 keeps its own."""
    if x.dtype == np.float64:
        return x
    nan = x != x
    if nan.any():
        x = x.copy()
        x[nan] = NAN_F32 if x.dtype == np.float32 else np.uint16(0x7FFF).view(np.float16)
    return x


def flush(x: Array) -> Array:
    """.ftz: subnormal float32 becomes zero of its sign."""
    small = np.abs(x) < np.float32(2.0**-126)
    return np.where(small, np.copysign(np.float32(0), x), x)
