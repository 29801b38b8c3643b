"""gemm_w4a16: tiles of 16-bit activations times 4-bit weights decoded on the way, or the matrix-vector form for few rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gemv_w4a16 import MOST_ROWS, gemv_w4a16_configs, gemv_w4a16_default, gemv_w4a16_kernel
from .low_rank import add_low_rank, low_rank_block
from .nibbles import e2m1_to_halves, e4m3_to_half, int4_to_halves
from .tuning import capability_of, config_for, stages_of

TRITON_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@dataclass(frozen=True)
class W4A16Config:
    """A program computes BLOCK_M x BLOCK_N of y from steps of BLOCK_K columns: 64, which is one int4 group."""

    BLOCK_M: int
    BLOCK_N: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


def gemm_float32_default(m: int, n: int, k: int, capability: tuple[int, int]) -> W4A16Config:
    """For products without tensor cores."""
    return W4A16Config(32, 64, 64, 4, 2)


def gemm_w4a16_default(m: int, n: int, k: int, capability: tuple[int, int]) -> W4A16Config:
    if m <= 64:
        return W4A16Config(max(16, triton.next_power_of_2(m)), 64, 64, 4, 4)
    return W4A16Config(128, 128, 64, 8, 3) if capability >= (9, 0) else W4A16Config(64, 128, 64, 4, 3)


def gemm_w4a16_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[W4A16Config]:
    """The space that is searched."""
    if m <= 64:
        tiles = [(max(16, triton.next_power_of_2(m)), columns, 4) for columns in (32, 64, 128)]
    else:
        tiles = [(64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 128, 8), (64, 256, 8), (128, 256, 8)]
    return [W4A16Config(bm, bn, 64, warps, stages) for bm, bn, warps in tiles for stages in (3, 4, 5)]


@triton.jit
def gemm_w4a16_kernel(
    x, smooth, qweight, wscales, wtscale, low_rank_act, proj_up, bias, y,
    M, N, K, R,
    NVFP4: tl.constexpr, DOT: tl.constexpr, TWO_PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_is_in, column_is_in = rows < M, columns < N
    x_rows = x + rows.to(tl.int64)[:, None] * K
    weight_rows = qweight + columns.to(tl.int64)[:, None] * (K // 2)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        ks = k + tl.arange(0, BLOCK_K)
        half_ks = k // 2 + tl.arange(0, BLOCK_K // 2)
        hidden = tl.load(x_rows + ks[None, :], row_is_in[:, None] & (ks < K)[None, :], 0.0)
        packed = tl.load(weight_rows + half_ks[None, :], column_is_in[:, None] & (half_ks < K // 2)[None, :], 0)
        if NVFP4:
            # Codes times block scales have at most 6 significant bits: exact in float16 and bfloat16.
            blocks = k // 16 + tl.arange(0, BLOCK_K // 16)
            scale_is_in = column_is_in[:, None] & (blocks < K // 16)[None, :]
            scales = e4m3_to_half(tl.load(wscales + blocks[None, :].to(tl.int64) * N + columns[:, None], scale_is_in, 0))
            scales = tl.broadcast_to(scales[:, :, None], (BLOCK_N, BLOCK_K // 16, 8)).reshape(BLOCK_N, BLOCK_K // 2)
            even, odd = e2m1_to_halves(packed)
            weight = tl.join(even * scales, odd * scales).reshape(BLOCK_N, BLOCK_K)
            weight = weight.to(tl.float32).to(DOT) if DOT == tl.bfloat16 else weight.to(DOT)
        else:
            even, odd = int4_to_halves(packed, tl.float16 if DOT == tl.float32 else DOT)
            weight = tl.join(even, odd).reshape(BLOCK_N, BLOCK_K).to(DOT)
        if smooth is not None:
            exact = hidden.to(tl.float32) * (1.0 / tl.load(smooth + ks, ks < K, 1.0).to(tl.float32))[None, :]
            hidden = exact.to(DOT)
        if NVFP4:
            acc = tl.dot(hidden, tl.trans(weight), acc, input_precision="ieee")
            if TWO_PARTS:
                acc = tl.dot((exact - hidden.to(tl.float32)).to(DOT), tl.trans(weight), acc)
        else:
            product = tl.dot(hidden, tl.trans(weight), input_precision="ieee")
            if TWO_PARTS:
                product = tl.dot((exact - hidden.to(tl.float32)).to(DOT), tl.trans(weight), product)
            scale = tl.load(wscales + (k // 64) * N + columns.to(tl.int64), column_is_in, 0.0).to(tl.float32)
            acc += product * scale[None, :]
    if NVFP4:
        acc *= tl.load(wtscale)
    acc = add_low_rank(acc, low_rank_act, proj_up, rows, columns, M, N, R, BLOCK_R)
    if bias is not None:
        acc += tl.load(bias + columns, column_is_in, 0.0).to(tl.float32)[None, :]
    out = y + rows.to(tl.int64)[:, None] * N + columns[None, :]
    tl.store(out, acc.to(y.dtype.element_ty), row_is_in[:, None] & column_is_in[None, :])


def gemm_w4a16(
    x: Tensor,
    smooth: Tensor | None,
    qweight: Tensor,
    wscales: Tensor,
    wtscale: Tensor | None,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """y [M, N] = (x / smooth) @ weight^T + low_rank_act @ proj_up^T + bias; up to 4 rows read each weight once, in float32.

    x / smooth is split into two bfloat16 parts, unless x and y are bfloat16 themselves and cannot show the difference.
    """
    (m, k), (n, rank) = x.shape, proj_up.shape
    y = torch.empty(m, n, dtype=out_dtype, device=x.device)
    if not y.numel():
        return y
    nvfp4 = wscales.dtype == torch.float8_e4m3fn
    scales = wscales.contiguous().view(torch.uint8) if nvfp4 else wscales.contiguous()
    codes = qweight.contiguous()
    smooth, *companions = (None if each is None else each.contiguous() for each in (smooth, low_rank_act, proj_up, bias))
    further = (scales, wtscale, *companions, y, m, n, k, rank)
    sizes, kind = (m, n, k), f"{'nvfp4' if nvfp4 else 'int4'}-{str(x.dtype).removeprefix('torch.')}"
    if m <= MOST_ROWS:
        config = config_for("gemv_w4a16", x.device, kind, *sizes, gemv_w4a16_default, gemv_w4a16_configs)
        block_m = triton.next_power_of_2(m)
        blocks = {"BLOCK_M": block_m, "BLOCK_R": triton.next_power_of_2(max(rank, 1))}
        gemv_w4a16_kernel[(triton.cdiv(n, config.BLOCK_N),)](
            x.contiguous(), smooth, codes.view(torch.int32), *further,
            NVFP4=nvfp4, **blocks, **vars(config) | {"BLOCK_K": config.BLOCK_K // block_m},
        )  # fmt: skip
        return y
    default = gemm_float32_default if x.dtype == torch.float32 else gemm_w4a16_default
    config = config_for("gemm_w4a16", x.device, kind, *sizes, default, gemm_w4a16_configs)
    divided = smooth is not None and x.dtype != torch.float32
    gemm_w4a16_kernel[(triton.cdiv(m, config.BLOCK_M), triton.cdiv(n, config.BLOCK_N))](
        x.contiguous(), smooth, codes, *further,
        NVFP4=nvfp4, DOT=tl.bfloat16 if divided else TRITON_DTYPES[x.dtype],
        TWO_PARTS=divided and (x.dtype, out_dtype) != (torch.bfloat16, torch.bfloat16),
        BLOCK_R=low_rank_block(rank), **vars(config) | {"num_stages": stages_of(config.num_stages, capability_of(x.device))},
    )  # fmt: skip
    return y
