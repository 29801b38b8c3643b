"""RMSNorm of queries and keys, then the rotary embedding, in one launch over both."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .numbers import INTERPRETED, round_to, widen

ELEMENTS = 65536 if INTERPRETED.value else 4096  # of a program; the interpreter's time is the number of programs


class Side(NamedTuple):
    """x, y [tokens, heads, D]; weight [D], [heads * D] or none."""

    x: Tensor
    weight: Tensor | None
    y: Tensor


class SideTile(NamedTuple):
    """A program's share of a side; with all_heads one norm spans a token's heads, which are then all in the tile."""

    heads: int
    all_heads: bool
    block_t: int
    block_h: int
    block_d: int

    @property
    def elements(self) -> int:
        return self.block_t * self.block_h * self.block_d

    def programs(self, tokens: int) -> int:
        return triton.cdiv(tokens, self.block_t) * triton.cdiv(self.heads, self.block_h)


def tile_of(heads: int, width: int, all_heads: bool) -> SideTile:
    block_d, block_h = triton.next_power_of_2(width), triton.next_power_of_2(heads)
    if not all_heads:
        block_h = max(1, min(block_h, ELEMENTS // block_d))
    return SideTile(heads, all_heads, max(1, ELEMENTS // (block_h * block_d)), block_h, block_d)


@triton.jit
def load_pairs(values, offsets, columns_inside, inside, HALF: tl.constexpr, D: tl.constexpr):
    """The two members of each pair, float32 [.., .., D/2] each. offsets: of column 0, broadcast to the tile."""
    if HALF:
        pairs = tl.arange(0, columns_inside.shape[0] // 2)[None, None, :]
        mask = inside & (pairs < D // 2)
        first = widen(tl.load(values + offsets + pairs, mask=mask, other=0.0))
        return first, widen(tl.load(values + offsets + pairs + D // 2, mask=mask, other=0.0))
    else:
        columns = tl.arange(0, columns_inside.shape[0])[None, None, :]
        y = widen(tl.load(values + offsets + columns, mask=inside & columns_inside[None, None, :], other=0.0))
        return tl.split(tl.reshape(y, [y.shape[0], y.shape[1], y.shape[2] // 2, 2]))


@triton.jit
def norm_rope_side(
    side, cos, sin, program, tokens, T, eps,
    HALF: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, ALL_HEADS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    HEAD_BLOCKS: tl.constexpr = (HEADS + BLOCK_H - 1) // BLOCK_H
    token = (program // HEAD_BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T)
    head = (program % HEAD_BLOCKS) * BLOCK_H + tl.arange(0, BLOCK_H)
    columns_inside = tl.arange(0, BLOCK_D) < D
    inside = (token < tokens)[:, None, None] & (head < HEADS)[None, :, None]
    rows = token.to(tl.int64)[:, None, None] * HEADS + head[None, :, None]
    real, imaginary = load_pairs(side.x, rows * D, columns_inside, inside, HALF, D)
    if side.weight is not None:
        squares = tl.sum(real * real + imaginary * imaginary, 2)
        if ALL_HEADS:
            rstd = tl.rsqrt(tl.sum(squares, 1) / (HEADS * D) + eps)[:, None, None]
            starts, exists = head[None, :, None] * D, (head < HEADS)[None, :, None]
        else:
            rstd = tl.rsqrt(squares / D + eps)[:, :, None]
            starts, exists = tl.zeros([1, 1, 1], tl.int32), tl.full([1, 1, 1], True, tl.int1)
        weight_real, weight_imaginary = load_pairs(side.weight, starts, columns_inside, exists, HALF, D)
        real, imaginary = real * rstd * weight_real, imaginary * rstd * weight_imaginary
    pair = tl.arange(0, BLOCK_D // 2)[None, None, :]
    angles = (token % T)[:, None, None] * (D // 2) + pair
    c = widen(tl.load(cos + angles, mask=pair < D // 2, other=0.0))
    s = widen(tl.load(sin + angles, mask=pair < D // 2, other=0.0))
    real, imaginary = real * c - imaginary * s, imaginary * c + real * s
    dtype = side.y.dtype.element_ty
    if HALF:
        mask = inside & (pair < D // 2)
        tl.store(side.y + rows * D + pair, round_to(real, dtype), mask=mask)
        tl.store(side.y + rows * D + pair + D // 2, round_to(imaginary, dtype), mask=mask)
    else:
        y = tl.reshape(tl.join(real, imaginary), [BLOCK_T, BLOCK_H, BLOCK_D])
        pointers = side.y + rows * D + tl.arange(0, BLOCK_D)[None, None, :]
        tl.store(pointers, round_to(y, dtype), mask=inside & columns_inside[None, None, :])


@triton.jit
def qk_norm_rope_kernel(
    q, k, cos, sin, tokens, T, eps, q_programs,
    HALF: tl.constexpr, D: tl.constexpr, Q_TILE: tl.constexpr, K_TILE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if program < q_programs:
        norm_rope_side(q, cos, sin, program, tokens, T, eps, HALF, D, Q_TILE[0], Q_TILE[1], Q_TILE[2], Q_TILE[3], Q_TILE[4])
    else:
        program -= q_programs
        norm_rope_side(k, cos, sin, program, tokens, T, eps, HALF, D, K_TILE[0], K_TILE[1], K_TILE[2], K_TILE[3], K_TILE[4])


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor]:
    batch, length, _, width = q.shape
    sides, tiles = [], []
    for x, weight in ((q, q_weight), (k, k_weight)):
        x = x.contiguous()
        sides.append(Side(x, None if weight is None else weight.contiguous(), torch.empty_like(x)))
        tiles.append(tile_of(x.shape[2], width, weight is not None and weight.shape[0] != width))
    tokens = batch * length
    programs = [tile.programs(tokens) for tile in tiles]
    qk_norm_rope_kernel[(sum(programs),)](
        *sides, cos.contiguous(), sin.contiguous(), tokens, length, eps, programs[0],
        HALF=rope == "half", D=width, Q_TILE=tuple(tiles[0]), K_TILE=tuple(tiles[1]),
        num_warps=max(1, min(16, max(tile.elements for tile in tiles) // 1024)),
    )  # fmt: skip
    return sides[0].y, sides[1].y
