"""gemm_w4a16: tiles of 16-bit activations times 4-bit weights decoded on the way, or the matrix-vector form for few rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gemv_w4a16 import gemv_w4a16_kernel
from .low_rank import add_low_rank, low_rank_block
from .nibbles import e2m1_to_halves, e4m3_to_half, int4_to_halves
from .tuning import config_for, dtype_key

GEMV_ROWS = 4
TRITON_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@dataclass(frozen=True)
class W4A16Config:
    """A block makes block_m x block_n outputs, block_k columns of x at a time: 64 in a tile, which is one int4 group."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def gemm_w4a16_default(m: int, n: int, k: int, capability: tuple[int, int]) -> W4A16Config:
    if m <= GEMV_ROWS:
        block_m = triton.next_power_of_2(m)
        return W4A16Config(block_m, 16 if n >= 4096 else 8, 1024 // block_m, 4, 1)
    if m <= 16:
        return W4A16Config(16, 64, 64, 4, 5)
    if m <= 64:
        return W4A16Config(triton.next_power_of_2(m), 64, 64, 4, 4)
    return W4A16Config(128, 128, 64, 8, 3) if capability >= (9, 0) else W4A16Config(64, 128, 64, 4, 3)


def gemm_w4a16_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[W4A16Config]:
    """The space that is searched for M = m."""
    if m <= GEMV_ROWS:
        block_m = triton.next_power_of_2(m)
        return [W4A16Config(block_m, bn, bk // block_m, warps, 1) for bn in (8, 16) for bk in (512, 1024) for warps in (2, 4)]
    if m <= 64:
        rows = max(16, triton.next_power_of_2(m))
        return [W4A16Config(rows, bn, 64, 4, stages) for bn in (32, 64, 128) for stages in (3, 5)]
    tiles = ((64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 128, 8))
    return [W4A16Config(bm, bn, 64, warps, stages) for bm, bn, warps in tiles for stages in (3, 4)]


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
    config = config_for("gemm_w4a16", x.device, dtype_key(x.dtype, "nvfp4" if nvfp4 else "int4"), m, n, k)
    codes, companions = qweight.contiguous(), (low_rank_act.contiguous(), proj_up.contiguous(), bias)
    operands = (x.contiguous(), smooth, codes, scales, wtscale, *companions, y, m, n, k, rank)
    launch = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    blocks = {"NVFP4": nvfp4, "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k}
    if m <= GEMV_ROWS:
        words = codes.view(torch.int32)
        gemv_w4a16_kernel[(triton.cdiv(n, config.block_n),)](
            *operands[:2], words, *operands[3:], **blocks, BLOCK_R=triton.next_power_of_2(max(rank, 1)), **launch
        )
        return y
    dot = torch.bfloat16 if smooth is not None and x.dtype != torch.float32 else x.dtype
    two_parts = smooth is not None and x.dtype != torch.float32 and (x.dtype, out_dtype) != (torch.bfloat16, torch.bfloat16)
    gemm_w4a16_kernel[(triton.cdiv(m, config.block_m), triton.cdiv(n, config.block_n))](
        *operands, **blocks, DOT=TRITON_DTYPES[dot], TWO_PARTS=two_parts, BLOCK_R=low_rank_block(rank), **launch
    )
    return y
