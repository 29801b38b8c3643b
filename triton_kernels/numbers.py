"""Rounding, scales and packing inside kernels, bit for bit what engine/formats computes on finite groups and on those with NaN."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
FLOAT32_MAX = tl.constexpr(3.4028234663852886e38)
FLOAT16_MAX = tl.constexpr(65504.0)


@triton.jit
def round_to(x, dtype: tl.constexpr):
    """float32 x in dtype, nearest even; the interpreter itself truncates to bfloat16."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = ((bits >> 16) + ((bits & 0xFFFF) + ((bits >> 16) & 1) > 0x8000)).to(tl.uint16)
        return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, 0x7FC0, rounded).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def widen(x):
    """x in float32; the interpreter's own conversion is wrong for subnormal bfloat16, and slow."""
    if INTERPRETED and x.dtype == tl.bfloat16:
        return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def dot(a, b, accumulator):
    """accumulator + a @ b in float32; the interpreter cannot multiply bfloat16."""
    if INTERPRETED or a.dtype != b.dtype:
        a, b = widen(a), widen(b)
    return tl.dot(a, b, accumulator, input_precision="ieee")


@triton.jit
def quotient(x, divisor, reciprocal):
    """x / divisor correctly rounded, for finite x and a result that is a normal float; `reciprocal` is that of divisor, rounded to
    nearest.

    Source: Markstein, Computation of elementary functions on the IBM RISC System/6000, 1990, theorem 8.
    """
    if INTERPRETED:  # its fma rounds twice
        return x / divisor
    else:
        estimate = x * reciprocal
        # The remainder's sign is turned twice so that -0 stays -0. Triton's own negation is 0 - x, which the compiler must keep.
        remainder = tl.fma(estimate, divisor, x * -1.0)
        return tl.fma(remainder * -1.0, reciprocal, estimate)


@triton.jit
def approximate_reciprocal(x):
    """1 / x to within a unit of the last place, without the calls of an exact division."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def reciprocal_of(x):
    """1 / x rounded to nearest, but for mantissas of ones alone; x and 1 / x are normal floats."""
    approximation = approximate_reciprocal(x)
    if INTERPRETED:
        return approximation
    else:
        return tl.fma(approximation, tl.fma(approximation * -1.0, x, 1.0), approximation)


@triton.jit
def divide(x, divisor):
    """x / divisor, infinities and NaN included, correctly rounded where that is a quotient of 16-bit numbers and nothing is subnormal.

    No such quotient is so near the middle of two floats that the error of the reciprocal could matter.
    """
    if INTERPRETED:
        return x / divisor
    else:
        reciprocal = approximate_reciprocal(divisor)
        estimate = x * reciprocal
        return tl.where(tl.abs(estimate) < float("inf"), quotient(x, divisor, reciprocal), estimate)


@triton.jit
def divide_by_constant(x, divisor: tl.constexpr):
    """x / divisor for x >= 0, infinity and NaN included, correctly rounded."""
    return tl.where(x < float("inf"), quotient(x, divisor, 1.0 / divisor), x)


@triton.jit
def rounded_bits(x):
    """x rounded half to even, in the low bits of an int32: 1.5 * 2^23 leaves a float's last bit the weight of one. |x| < 2^22."""
    return (x + 12582912.0).to(tl.int32, bitcast=True)


@triton.jit
def magnitude_bits(x):
    """The bits of |x|, ordered as integers like the magnitudes, NaN above infinity."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def float_of(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def scale_from_peak(peak, largest_code: tl.constexpr, dtype: tl.constexpr):
    """The scale in dtype that maps peak (float32, >= 0) to the largest code: formats.scaling.scale_from_peak."""
    limit: tl.constexpr = FLOAT16_MAX if dtype == tl.float16 else FLOAT32_MAX / (largest_code + 1)
    scale = divide_by_constant(peak, largest_code)
    scale = widen(round_to(tl.where(scale > limit, limit, scale), dtype))
    return round_to(tl.where(scale == 0, 1.0, scale), dtype)


@triton.jit
def divide_by_scale(x, scale, lowest: tl.constexpr, highest: tl.constexpr):
    """x / scale clamped to [lowest, highest], correctly rounded wherever that is not rounded to zero; 0 where scale is NaN.

    scale broadcasts to x.
    """
    towards_one = tl.where(scale < 2.0**-70, 2.0**100, tl.where(scale > 2.0**70, 2.0**-100, 1.0))
    divisor = tl.where(scale == scale, scale * towards_one, 1.0)
    bound = tl.where(scale == scale, divisor, 0.0)
    x = tl.minimum(tl.maximum(x * towards_one, lowest * bound), highest * bound)
    return quotient(x, divisor, reciprocal_of(divisor))


@triton.jit
def to_e4m3(x, HARDWARE_E4M3: tl.constexpr):
    """float32 -> uint8 bits of E4M3, nearest even, saturating at 448. HARDWARE_E4M3: from sm_89 on there is an instruction."""
    if HARDWARE_E4M3:
        return x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    else:
        bits = x.to(tl.int32, bitcast=True)
        magnitude = bits & 0x7FFFFFFF
        # Below 2^-6 the grid's step is 2^-9, that of floats in [2^14, 2^15).
        subnormal = (float_of(magnitude) + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
        normal = (tl.minimum(magnitude, 0x43E00000) + 0x7FFFF + ((magnitude >> 20) & 1) >> 20) - 960
        code = tl.where(magnitude < 0x3C800000, subnormal, tl.minimum(normal, 0x7E))
        code = tl.where(magnitude > 0x7F800000, 0x7F, code)
        return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def from_e4m3(code):
    """uint8 bits of E4M3 -> float32."""
    bits = code.to(tl.int32)
    magnitude = float_of((bits & 0x7F) << 20) * 2.0**120
    value = float_of(magnitude.to(tl.int32, bitcast=True) | ((bits & 0x80) << 24))
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def to_e2m1(x):
    """float32, not NaN -> int32 code 0..15 of E2M1, ties to the even code, saturating at 6."""
    bits = x.to(tl.int32, bitcast=True)
    magnitude = tl.minimum(bits & 0x7FFFFFFF, 0x40C00000)
    # Below 1 the grid's step is 0.5, that of floats in [2^22, 2^23).
    subnormal = (float_of(magnitude) + 4194304.0).to(tl.int32, bitcast=True) - 0x4A800000
    normal = (magnitude + 0x1FFFFF + ((magnitude >> 22) & 1) >> 22) - 252
    return tl.where(magnitude < 0x3F800000, subnormal, normal) | ((bits >> 28) & 8)


@triton.jit
def from_e2m1(code):
    """int32 code 0..15 of E2M1 -> float32."""
    magnitude = float_of((code & 7) << 22) * 2.0**126
    return float_of(magnitude.to(tl.int32, bitcast=True) | ((code & 8) << 28))


@triton.jit
def pack_nibbles(codes):
    """int32 codes [BLOCK_M, BLOCK_K], only their low nibbles used -> int8 [BLOCK_M, BLOCK_K/2], the low nibble the even column."""
    low, high = tl.split(tl.reshape(codes, [codes.shape[0], codes.shape[1] // 2, 2]))
    return ((low & 0xF) | (high << 4)).to(tl.int8)
