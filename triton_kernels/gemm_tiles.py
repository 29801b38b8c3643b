"""Tiles of a matrix product: their sizes, the order programs take them in, and which rows of the operands they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import triton
import triton.language as tl

@dataclass(frozen=True)
class GemmConfig:
    """A program computes BLOCK_M x BLOCK_N of y from steps of BLOCK_K columns; GROUP_M tiles below each other run together."""

    BLOCK_M: int
    BLOCK_N: int
    BLOCK_K: int
    GROUP_M: int
    num_warps: int
    num_stages: int

    def grid(self, m: int, n: int) -> tuple[int]:
        return (triton.cdiv(m, self.BLOCK_M) * triton.cdiv(n, self.BLOCK_N),)

    def holding(self, columns: int) -> Self:
        """With tiles at least as wide, which take no more registers of a thread and little more shared memory."""
        if self.BLOCK_N >= columns:
            return self
        block_m = max(64, self.BLOCK_M * self.BLOCK_N // columns)
        warps = self.num_warps if block_m * columns <= self.BLOCK_M * self.BLOCK_N else 8
        stages = max(2, self.num_stages * (self.BLOCK_M + self.BLOCK_N) // (block_m + columns))
        return replace(self, BLOCK_M=block_m, BLOCK_N=columns, num_warps=warps, num_stages=min(stages, self.num_stages))


@triton.jit
def tile_of_program(program, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Programs that run together form a block of GROUP_M rows of tiles, so that both operands are read from L2."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = program // (GROUP_M * tiles_n)
    within = program % (GROUP_M * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    return group * GROUP_M + within % height, within // height


@triton.jit
def rows_of_tile(tile_m, M, BLOCK_M: tl.constexpr):
    """Rows beyond the last repeat it: they are read, and never stored."""
    return tl.minimum(tile_m * BLOCK_M + tl.arange(0, BLOCK_M), M - 1)


@triton.jit
def weight_rows_of_tile(tile_n, N, BLOCK_N: tl.constexpr, GLU: tl.constexpr):
    """Rows of the weight, clamped like those of x. A gated unit's tile has rows of both halves: pairs meet in a thread."""
    offsets = tl.arange(0, BLOCK_N)
    if GLU == "none":
        return tl.minimum(tile_n * BLOCK_N + offsets, N - 1)
    else:
        HALF: tl.constexpr = BLOCK_N // 2
        return tl.minimum(tile_n * HALF + offsets % HALF, N // 2 - 1) + offsets // HALF * (N // 2)


@triton.jit
def load_tile(codes_ptr, rows, stride, first, end, BLOCK: tl.constexpr, RAGGED: tl.constexpr):
    """codes[rows, first : first + BLOCK]; zero from `end` on where RAGGED."""
    columns = first + tl.arange(0, BLOCK)
    pointers = codes_ptr + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if RAGGED:
        return tl.load(pointers, mask=(columns < end)[None, :], other=0.0)
    else:
        return tl.load(pointers)
