"""conv2d and conv2d_gate_residual: matrix products whose rows are the pixels under one tap, each with its own scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from .low_rank import add_low_rank, low_rank_block
from .nibbles import e2m1_to_halves, e4m3_to_half, nibbles_at_top
from .tuning import capability_of, config_for, stages_of

ELEMENTS_PER_CODE = {"int4": 2, "nvfp4": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class Conv2dConfig:
    """A program computes BLOCK_M pixels x BLOCK_N channels from steps of BLOCK_K channels of one tap; of int4 one group, 64."""

    BLOCK_M: int
    BLOCK_N: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


def conv2d_default(format: str, m: int, n: int, k: int, capability: tuple[int, int]) -> Conv2dConfig:
    if triton.knobs.runtime.interpret:  # whose time is the number of tiles
        return Conv2dConfig(128, 256, 64, 4, 1)
    channels = 64 if format in ("int4", "nvfp4") else 128
    if m <= 512 or n <= 64 or (format == "nvfp4" and capability < (9, 0)):
        return Conv2dConfig(64, 64, channels, 4, 3)
    return Conv2dConfig(128, 128, channels, 8, 3)


def conv2d_configs(format: str, m: int, n: int, k: int, capability: tuple[int, int]) -> list[Conv2dConfig]:
    """The space that is searched."""
    tiles, steps = ((64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 128, 8)), (64,) if format == "int4" else (64, 128)
    return [Conv2dConfig(bm, bn, bk, warps, stages) for bm, bn, warps in tiles for bk in steps for stages in (3, 4)]


@triton.jit
def tap_product(codes, weight, ascales, wscales, FORMAT: tl.constexpr, NATIVE_FP8: tl.constexpr):
    """The float32 product of one step: codes [BLOCK_M, bytes], weight [BLOCK_N, bytes], nvfp4 scales [rows, bytes]."""
    if FORMAT == "int8":
        return tl.dot(codes, tl.trans(weight), out_dtype=tl.int32).to(tl.float32)
    elif FORMAT == "int4":
        x_even, x_odd = nibbles_at_top(codes)
        w_even, w_odd = nibbles_at_top(weight)
        sums = tl.dot(x_even, tl.trans(w_even), out_dtype=tl.int32)
        sums = tl.dot(x_odd, tl.trans(w_odd), sums, out_dtype=tl.int32)
        return sums.to(tl.float32) * 0.00390625
    elif FORMAT == "fp8":
        if NATIVE_FP8:
            return tl.dot(codes, tl.trans(weight))
        else:
            return tl.dot(e4m3_to_half(codes), tl.trans(e4m3_to_half(weight)))
    else:
        # Codes times block scales have at most 6 significant bits: exact in float16.
        x_even, x_odd = e2m1_to_halves(codes)
        w_even, w_odd = e2m1_to_halves(weight)
        product = tl.dot(x_even * ascales, tl.trans(w_even * wscales))
        return tl.dot(x_odd * ascales, tl.trans(w_odd * wscales), product)


@triton.jit
def block_scales(scales, places, is_in, blocks, BLOCKS, STRIDE, ROWS: tl.constexpr, COUNT: tl.constexpr):
    """E4M3 scales of `blocks` for each of `places`, repeated for the 8 bytes that a block has: float16 [ROWS, 8 * COUNT]."""
    mask = is_in[:, None] & (blocks < BLOCKS)[None, :]
    loaded = e4m3_to_half(tl.load(scales + blocks.to(tl.int64)[None, :] * STRIDE + places[:, None], mask, 0))
    return tl.broadcast_to(loaded[:, :, None], (ROWS, COUNT, 8)).reshape(ROWS, COUNT * 8)


@triton.jit
def conv2d_kernel(
    qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, gate, residual, y,
    M, N, R, ROWS_PER_GATE, PADDED_PIXELS, CHANNEL_BYTES, SEGMENTS,
    IN_HEIGHT, IN_WIDTH, OUT_HEIGHT, OUT_WIDTH, KERNEL_WIDTH, TAPS,
    STRIDE_Y, STRIDE_X, PADDING_Y, PADDING_X, DILATION_Y, DILATION_X,
    FORMAT: tl.constexpr, NATIVE_FP8: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_BYTES: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """A segment is what shares one activation scale; nvfp4, whose scales are in the operands, has one."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_is_in, column_is_in = rows < M, columns < N
    image, place = rows // (OUT_HEIGHT * OUT_WIDTH), rows % (OUT_HEIGHT * OUT_WIDTH)
    top, left = place // OUT_WIDTH * STRIDE_Y - PADDING_Y, place % OUT_WIDTH * STRIDE_X - PADDING_X
    weight_rows = qweight + columns.to(tl.int64)[:, None] * (TAPS * CHANNEL_BYTES)
    segment_bytes = CHANNEL_BYTES // SEGMENTS
    steps_of_a_segment = tl.cdiv(segment_bytes, BLOCK_BYTES)
    steps_of_a_tap = SEGMENTS * steps_of_a_segment
    BLOCK_SCALES: tl.constexpr = BLOCK_BYTES // 8
    ZERO: tl.constexpr = 0.0 if NATIVE_FP8 else 0
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, TAPS * steps_of_a_tap):
        tap = step // steps_of_a_tap
        segment = step % steps_of_a_tap // steps_of_a_segment
        first = step % steps_of_a_segment * BLOCK_BYTES
        in_y, in_x = top + tap // KERNEL_WIDTH * DILATION_Y, left + tap % KERNEL_WIDTH * DILATION_X
        is_inside = row_is_in & (in_y >= 0) & (in_y < IN_HEIGHT) & (in_x >= 0) & (in_x < IN_WIDTH)
        pixels = (image * IN_HEIGHT + in_y) * IN_WIDTH + in_x
        places = first + tl.arange(0, BLOCK_BYTES)
        place_is_in = (places < segment_bytes)[None, :]
        places += segment * segment_bytes
        codes = tl.load(
            qx + pixels.to(tl.int64)[:, None] * CHANNEL_BYTES + places[None, :], is_inside[:, None] & place_is_in, ZERO
        )
        weight = tl.load(weight_rows + (tap * CHANNEL_BYTES + places)[None, :], column_is_in[:, None] & place_is_in, ZERO)
        if FORMAT == "nvfp4":
            blocks, count = first // 8 + tl.arange(0, BLOCK_SCALES), CHANNEL_BYTES // 8
            x_scales = block_scales(ascales, pixels, is_inside, blocks, count, PADDED_PIXELS, BLOCK_M, BLOCK_SCALES)
            tap_scales = wscales + (tap * count).to(tl.int64) * N
            w_scales = block_scales(tap_scales, columns, column_is_in, blocks, count, N, BLOCK_N, BLOCK_SCALES)
            acc += tap_product(codes, weight, x_scales, w_scales, FORMAT, NATIVE_FP8)
        else:
            product = tap_product(codes, weight, None, None, FORMAT, NATIVE_FP8)
            x_scale = tl.load(ascales + segment.to(tl.int64) * PADDED_PIXELS + pixels, is_inside, 0.0).to(tl.float32)
            if FORMAT == "int4":
                group = (tap * SEGMENTS + segment).to(tl.int64)
                product *= tl.load(wscales + group * N + columns, column_is_in, 0.0).to(tl.float32)[None, :]
            acc += product * x_scale[:, None]
    if FORMAT == "nvfp4":
        acc *= tl.load(wtscale)
    elif FORMAT != "int4":
        acc *= tl.load(wscales + columns, column_is_in, 0.0)[None, :]
    acc = add_low_rank(acc, low_rank_act, proj_up, rows, columns, M, N, R, BLOCK_R)
    if bias is not None:
        acc += tl.load(bias + columns, column_is_in, 0.0).to(tl.float32)[None, :]
    is_in = row_is_in[:, None] & column_is_in[None, :]
    offsets = rows.to(tl.int64)[:, None] * N + columns[None, :]
    if gate is not None:
        acc *= tl.load(gate + (rows // ROWS_PER_GATE).to(tl.int64)[:, None] * N + columns[None, :], is_in, 0.0).to(tl.float32)
    if residual is not None:
        acc += tl.load(residual + offsets, is_in, 0.0).to(tl.float32)
    tl.store(y + offsets, acc.to(y.dtype.element_ty), is_in)


def conv2d_gate_residual(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    wtscale: Tensor | None,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    format: str,
    image: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    out_dtype: torch.dtype,
    gate: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """residual + gate * conv2d(...) [B, Ho, Wo, N]; each gate row holds for M / rows of gate rows of the product."""
    (batch, *in_size), (n, rank), taps = image, proj_up.shape, kernel[0] * kernel[1]
    height, width = (
        (in_size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )  # fmt: skip
    m = batch * height * width
    y = torch.empty(batch, height, width, n, dtype=out_dtype, device=qx.device)
    if not y.numel():
        return y
    capability = capability_of(qx.device)
    native_fp8 = format == "fp8" and capability >= (8, 9)
    sizes = (m, n, taps * qx.shape[1] * ELEMENTS_PER_CODE[format])
    config = config_for("conv2d", qx.device, format, *sizes, partial(conv2d_default, format), partial(conv2d_configs, format))
    block_bytes = (64 if format == "int4" else config.BLOCK_K) // ELEMENTS_PER_CODE[format]
    codes, scales = [qx.contiguous(), qweight.contiguous()], [ascales.contiguous(), wscales.contiguous()]
    if format == "fp8" and not native_fp8:
        codes = [tensor.view(torch.uint8) for tensor in codes]
    if format == "nvfp4":
        scales = [tensor.view(torch.uint8) for tensor in scales]
    companions = (tensor if tensor is None else tensor.contiguous() for tensor in (low_rank_act, proj_up, bias, gate, residual))
    conv2d_kernel[(triton.cdiv(m, config.BLOCK_M), triton.cdiv(n, config.BLOCK_N))](
        codes[0], scales[0], codes[1], scales[1], wtscale, *companions, y,
        m, n, rank, m // gate.shape[0] if gate is not None else 1,
        ascales.shape[1], qx.shape[1], 1 if format == "nvfp4" else ascales.shape[0],
        *in_size, height, width, kernel[1], taps, *stride, *padding, *dilation,
        FORMAT=format, NATIVE_FP8=native_fp8,
        BLOCK_M=config.BLOCK_M, BLOCK_N=config.BLOCK_N, BLOCK_BYTES=block_bytes, BLOCK_R=low_rank_block(rank),
        num_warps=config.num_warps, num_stages=stages_of(config.num_stages, capability),
    )  # fmt: skip
    return y


def conv2d(*operands) -> Tensor:
    """`conv2d_gate_residual` without gate and residual."""
    return conv2d_gate_residual(*operands, None, None)
