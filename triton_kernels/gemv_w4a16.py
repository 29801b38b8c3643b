"""The matrix-vector form of gemm_w4a16: a block keeps some rows of the weight, reads them once, and adds up along K at the end."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from .nibbles import e2m1_to_float, e4m3_to_half, int4_to_float


MOST_ROWS = 4


@dataclass(frozen=True)
class GemvConfig:
    """A block takes BLOCK_N rows of the weight, BLOCK_K columns at a time for one row of x and fewer for more."""

    BLOCK_N: int
    BLOCK_K: int
    num_warps: int


def gemv_w4a16_default(m: int, n: int, k: int, capability: tuple[int, int]) -> GemvConfig:
    if triton.knobs.runtime.interpret:  # whose time is the number of programs
        return GemvConfig(256, 256, 4)
    return GemvConfig(16 if n >= 4096 else 8, 512, 4)


def gemv_w4a16_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[GemvConfig]:
    """The space that is searched."""
    return [GemvConfig(rows, columns, warps) for rows in (4, 8, 16) for columns in (512, 1024) for warps in (2, 4, 8)]


@triton.jit
def split_octets(x, BLOCK_M: tl.constexpr, WORDS: tl.constexpr):
    """x [BLOCK_M, 8 * WORDS] -> its columns 0 to 7 of every 8, each [BLOCK_M, WORDS]."""
    even, odd = tl.split(x.reshape(BLOCK_M, WORDS, 2, 2, 2))
    x0_4, x2_6 = tl.split(even)
    x1_5, x3_7 = tl.split(odd)
    x0, x4 = tl.split(x0_4)
    x1, x5 = tl.split(x1_5)
    x2, x6 = tl.split(x2_6)
    x3, x7 = tl.split(x3_7)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def gemv_w4a16_kernel(
    x, smooth, words, wscales, wtscale, low_rank_act, proj_up, bias, y,
    M, N, K, R,
    NVFP4: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """words int32 [N, K/8]: eight codes each."""
    WORDS: tl.constexpr = BLOCK_K // 8
    WORDS_OF_A_SCALE: tl.constexpr = 2 if NVFP4 else 8
    rows, columns = tl.arange(0, BLOCK_M), tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_is_in, column_is_in = rows < M, columns < N
    word_rows = words + columns.to(tl.int64)[:, None] * (K // 8)
    acc = tl.zeros((BLOCK_M, BLOCK_N, WORDS), tl.float32)
    for k in range(0, K, BLOCK_K):
        ks, places = k + tl.arange(0, BLOCK_K), k // 8 + tl.arange(0, WORDS)
        weight_is_in = column_is_in[:, None] & (places < K // 8)[None, :]
        eight = tl.load(word_rows + places[None, :], weight_is_in, 0)
        scales = tl.load(wscales + (places // WORDS_OF_A_SCALE).to(tl.int64)[None, :] * N + columns[:, None], weight_is_in, 0)
        scales = e4m3_to_half(scales).to(tl.float32) if NVFP4 else scales.to(tl.float32)
        hidden = tl.load(x + rows[:, None] * K + ks[None, :], row_is_in[:, None] & (ks < K)[None, :], 0.0).to(tl.float32)
        if smooth is not None:
            hidden *= (1.0 / tl.load(smooth + ks, ks < K, 1.0).to(tl.float32))[None, :]
        parts = split_octets(hidden, BLOCK_M, WORDS)
        products = tl.zeros((BLOCK_M, BLOCK_N, WORDS), tl.float32)
        for i in tl.static_range(8):
            weight = e2m1_to_float(eight >> (4 * i)) if NVFP4 else int4_to_float(eight >> (4 * i))
            products += parts[i][:, None, :] * weight[None, :, :]
        acc += products * scales[None, :, :]
    out = tl.sum(acc, 2)
    if NVFP4:
        out *= tl.load(wtscale)
    rs = tl.arange(0, BLOCK_R)
    act = tl.load(low_rank_act + rows[:, None] * R + rs[None, :], row_is_in[:, None] & (rs < R)[None, :], 0.0).to(tl.float32)
    up = tl.load(proj_up + columns.to(tl.int64)[:, None] * R + rs[None, :], column_is_in[:, None] & (rs < R)[None, :], 0.0)
    out += tl.sum(act[:, None, :] * up.to(tl.float32)[None, :, :], 2)
    if bias is not None:
        out += tl.load(bias + columns, column_is_in, 0.0).to(tl.float32)[None, :]
    tl.store(y + rows[:, None] * N + columns[None, :], out.to(y.dtype.element_ty), row_is_in[:, None] & column_is_in[None, :])
