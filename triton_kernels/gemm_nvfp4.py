"""The NVFP4 product: block-scaled on tensor cores that have it, elsewhere decoded exactly to float16 on the way there."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .epilogue import Epilogue, dtype_name, epilogue_constants, epilogue_operands, finish
from .fused_ops import fused_ops
from .gemm_tiles import GemmConfig, load_tile, rows_of_tile, tile_of_program, weight_rows_of_tile
from .nibbles import e2m1_to_halves, e4m3_to_half
from .numbers import INTERPRETED
from .tuning import capability_of, config_for

BLOCK_SCALED_CAPABILITIES = ((10, 0), (10, 3), (12, 0), (12, 1))
BLOCK_SIZE = tl.constexpr(16)


@triton.jit
def load_scales(scales_ptr, rows, stride, first, K: tl.constexpr, BLOCK_K: tl.constexpr, RAGGED_K: tl.constexpr):
    """Block scales [len(rows), BLOCK_K / 16] of scales [K / 16, stride]; zero beyond K."""
    blocks = first // BLOCK_SIZE + tl.arange(0, BLOCK_K // BLOCK_SIZE)
    pointers = scales_ptr + blocks.to(tl.int64)[None, :] * stride + rows[:, None]
    if RAGGED_K:
        return tl.load(pointers, mask=(blocks < K // BLOCK_SIZE)[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def decode(packed, scales):
    """Packed codes [ROWS, BLOCK_K / 2] and bytes of scales [ROWS, BLOCK_K / 16] -> even and odd columns in float16.

    A code times its scale has at most 6 significant bits between 2^-10 and 2688: exact.
    """
    ROWS: tl.constexpr = packed.shape[0]
    HALF: tl.constexpr = packed.shape[1]
    scales = e4m3_to_half(scales)
    scales = tl.broadcast_to(scales[:, :, None], (ROWS, HALF // 8, 8)).reshape(ROWS, HALF)
    even, odd = e2m1_to_halves(packed)
    return even * scales, odd * scales


@triton.jit(do_not_specialize=["M", "padded_rows"])
def gemm_nvfp4_kernel(
    x_ptr, ascales_ptr, weight_ptr, wscales_ptr, wtscale_ptr, operands, M, N, padded_rows, K: tl.constexpr,
    RAGGED_K: tl.constexpr, BLOCK_SCALED: tl.constexpr,
    RANK: tl.constexpr, BLOCK_R: tl.constexpr, ACTIVATION: tl.constexpr, GLU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = tile_of_program(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = rows_of_tile(tile_m, M, BLOCK_M)
    weight_rows = weight_rows_of_tile(tile_n, N, BLOCK_N, GLU)
    y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in tl.range(0, K, BLOCK_K):
        x = load_tile(x_ptr, rows, K // 2, k // 2, K // 2, BLOCK_K // 2, RAGGED_K)
        weight = load_tile(weight_ptr, weight_rows, K // 2, k // 2, K // 2, BLOCK_K // 2, RAGGED_K)
        ascales = load_scales(ascales_ptr, rows, padded_rows, k, K, BLOCK_K, RAGGED_K)
        wscales = load_scales(wscales_ptr, weight_rows, N, k, K, BLOCK_K, RAGGED_K)
        if BLOCK_SCALED:
            y = tl.dot_scaled(x, ascales, "e2m1", weight.T, wscales, "e2m1", y)
        else:
            x_even, x_odd = decode(x, ascales)
            weight_even, weight_odd = decode(weight, wscales)
            # The order of columns does not matter to a sum.
            y = tl.dot(x_even, weight_even.T, y)
            y = tl.dot(x_odd, weight_odd.T, y)
    y *= tl.load(wtscale_ptr)
    finish(y, rows, weight_rows, tile_m, tile_n, M, N, operands, RANK, BLOCK_R, ACTIVATION, GLU)


def gemm_nvfp4_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[GemmConfig]:
    """The tiles worth measuring."""
    if capability in BLOCK_SCALED_CAPABILITIES:
        tiles = [GemmConfig(128, n, 128, 8, 8, stages) for n in (64, 128) for stages in (2, 3, 4)]
        return [*tiles, GemmConfig(128, 128, 256, 8, 8, 2)]
    if m <= 64:
        return [GemmConfig(64, n, k, 8, 4, 3) for n in (64, 128) for k in (64, 128)]
    return [GemmConfig(128, 128, k, 8, 8, stages) for k in ((64, 128) if capability == (9, 0) else (64,)) for stages in (2, 3, 4)]


def gemm_nvfp4_default(m: int, n: int, k: int, capability: tuple[int, int]) -> GemmConfig:
    """The tile to start with; a pure function of the sizes and the GPU."""
    if INTERPRETED.value:  # whose time is the number of programs and of their steps
        return GemmConfig(64, 256, 256, 8, 4, 1)
    if capability in BLOCK_SCALED_CAPABILITIES:  # sm_100 scales blocks in tiles of 128 rows
        return GemmConfig(128, 128 if m > 64 else 64, 128, 8, 8, 3)
    if m <= 64:
        return GemmConfig(64, 64, 128, 8, 4, 3)
    return GemmConfig(128, 128, 128 if capability == (9, 0) else 64, 8, 8, 3)


def gemm_nvfp4(
    qx: Tensor, ascales: Tensor, qweight: Tensor, wscales: Tensor, wtscale: Tensor, low_rank_act: Tensor, proj_up: Tensor,
    bias: Tensor | None, out_dtype: torch.dtype, epilogue: Epilogue = Epilogue(),
) -> Tensor:  # fmt: skip
    m, (n, rank), k = qx.shape[0], proj_up.shape, 2 * qx.shape[1]
    kind = dtype_name(out_dtype)
    config = epilogue.tile(config_for("gemm_nvfp4", qx.device, kind, m, n, k, gemm_nvfp4_default, gemm_nvfp4_configs), n)
    operands = epilogue_operands(low_rank_act, proj_up, bias, out_dtype, epilogue, config)
    if operands.is_empty:
        return operands.out
    scaled = capability_of(qx.device) in BLOCK_SCALED_CAPABILITIES
    codes, scales = torch.uint8, torch.float8_e4m3fn if scaled else torch.uint8
    gemm_nvfp4_kernel[config.grid(m, n)](
        qx.contiguous().view(codes), ascales.contiguous().view(scales), qweight.contiguous().view(codes),
        wscales.contiguous().view(scales), wtscale, operands, m, n, ascales.shape[1], K=k, RAGGED_K=k % config.BLOCK_K != 0,
        BLOCK_SCALED=scaled, **epilogue_constants(rank, epilogue), **vars(config),
    )  # fmt: skip
    return operands.outputs(m, out_dtype)


gemm_nvfp4_act, gemm_nvfp4_act_quantize, gemm_nvfp4_gate_residual = fused_ops(gemm_nvfp4, 9)
