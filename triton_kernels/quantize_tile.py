"""Quantizing a tile of float32 values held by one program, as engine/formats does it."""

from __future__ import annotations

import triton
import triton.language as tl

from .numbers import (
    divide_by_constant,
    divide_by_scale,
    float_of,
    from_e2m1,
    from_e4m3,
    magnitude_bits,
    pack_nibbles,
    rounded_bits,
    scale_from_peak,
    to_e2m1,
    to_e4m3,
    widen,
)

BLOCK_SIZE = tl.constexpr(16)
GROUP_SIZE = tl.constexpr(64)


@triton.jit
def quantize_int4(y, UNSIGNED: tl.constexpr, scale_dtype: tl.constexpr):
    """y float32 [BLOCK_M, BLOCK_K] -> int8 [BLOCK_M, BLOCK_K/2], scales scale_dtype [BLOCK_M, BLOCK_K/64]."""
    block_m: tl.constexpr = y.shape[0]
    block_k: tl.constexpr = y.shape[1]
    lowest: tl.constexpr = 0.0 if UNSIGNED else -7.0
    highest: tl.constexpr = 15.0 if UNSIGNED else 7.0
    if UNSIGNED:
        y = tl.where(y < 0, 0.0, y)
    groups = tl.reshape(y, [block_m, block_k // GROUP_SIZE, GROUP_SIZE])
    scales = scale_from_peak(float_of(tl.max(magnitude_bits(groups), 2)), highest, scale_dtype)
    wide = widen(scales)[:, :, None]
    codes = rounded_bits(divide_by_scale(groups, wide, lowest, highest))
    return pack_nibbles(tl.reshape(codes, [block_m, block_k])), scales


@triton.jit
def round_blocks(blocks, peak, target: tl.constexpr, HARDWARE_E4M3: tl.constexpr):
    """Codes int32, scales as uint8 bits of E4M3 and in float32, that map each block's peak to target."""
    scale = divide_by_constant(peak, target)
    bits = to_e4m3(tl.where(scale < 2.0**-9, 2.0**-9, scale), HARDWARE_E4M3)
    scale = from_e4m3(bits)
    wide = scale[:, :, None]
    codes = to_e2m1(divide_by_scale(blocks, wide, -6.0, 6.0))
    return codes, bits, wide


@triton.jit
def quantize_nvfp4(y, FOUR_OVER_SIX: tl.constexpr, HARDWARE_E4M3: tl.constexpr):
    """y float32 [BLOCK_M, BLOCK_K] -> int8 [BLOCK_M, BLOCK_K/2], scales as uint8 bits of E4M3 [BLOCK_M, BLOCK_K/16]; outer scale 1."""
    block_m: tl.constexpr = y.shape[0]
    block_k: tl.constexpr = y.shape[1]
    blocks = tl.reshape(y, [block_m, block_k // BLOCK_SIZE, BLOCK_SIZE])
    peak = float_of(tl.max(magnitude_bits(blocks), 2))
    codes, scales, wide = round_blocks(blocks, peak, 6.0, HARDWARE_E4M3)
    if FOUR_OVER_SIX:
        codes_4, scales_4, wide_4 = round_blocks(blocks, peak, 4.0, HARDWARE_E4M3)
        error = from_e2m1(codes) * wide - blocks
        error_4 = from_e2m1(codes_4) * wide_4 - blocks
        better = tl.sum(error_4 * error_4, 2) < tl.sum(error * error, 2)
        codes = tl.where(better[:, :, None], codes_4, codes)
        scales = tl.where(better, scales_4, scales)
    return pack_nibbles(tl.reshape(codes, [block_m, block_k])), scales


@triton.jit
def quantize_four_bits(
    y,
    FORMAT: tl.constexpr,
    UNSIGNED: tl.constexpr,
    FOUR_OVER_SIX: tl.constexpr,
    scale_dtype: tl.constexpr,
    HARDWARE_E4M3: tl.constexpr,
):
    """quantize_int4 or quantize_nvfp4. FORMAT: "int4" or "nvfp4"."""
    if FORMAT == "int4":
        return quantize_int4(y, UNSIGNED, scale_dtype)
    else:
        return quantize_nvfp4(y, FOUR_OVER_SIX, HARDWARE_E4M3)


@triton.jit
def eight_bit_scale(peak_bits, FORMAT: tl.constexpr):
    """The float32 scale of a segment from the bits of its largest magnitude. FORMAT: "int8" or "fp8"."""
    largest_code: tl.constexpr = 127.0 if FORMAT == "int8" else 448.0
    return scale_from_peak(float_of(peak_bits), largest_code, tl.float32)


@triton.jit
def eight_bit_codes(y, scale, FORMAT: tl.constexpr, HARDWARE_E4M3: tl.constexpr):
    """y float32, scale that broadcasts to it -> int8 codes, or uint8 bits of E4M3."""
    if FORMAT == "int8":
        return rounded_bits(divide_by_scale(y, scale, -127.0, 127.0)).to(tl.int8)
    else:
        nan_or_nothing = tl.where(scale == scale, 0.0, float("nan")) * -1.0  # x + -0 is x, also for -0, which Triton cannot write
        return to_e4m3(divide_by_scale(y, scale, -448.0, 448.0) + nan_or_nothing, HARDWARE_E4M3)
