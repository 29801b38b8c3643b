"""RMSNorm of queries and keys, then the rotary embedding, in one launch over all tensors of all streams; values are copied."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .numbers import INTERPRETED, round_to, widen

ELEMENTS = 65536 if INTERPRETED.value else 4096  # of a program; the interpreter's time is the number of programs


class Side(NamedTuple):
    """x [B, length, heads, D], heads side by side in its rows, becomes the tokens from first_token on of y [B, T, heads, D].

    weight [D], [heads * D] or none; strides in elements.
    """

    x: Tensor
    weight: Tensor | None
    y: Tensor
    length: int
    first_token: int
    batch_stride: int
    row_stride: int
    programs: int


class SideTile(NamedTuple):
    """A program's share of a side; with all_heads one norm spans a token's heads, which are then all in the tile."""

    heads: int
    all_heads: bool
    rotated: bool
    block_t: int
    block_h: int
    block_d: int

    @property
    def elements(self) -> int:
        return self.block_t * self.block_h * self.block_d

    def programs(self, tokens: int) -> int:
        return triton.cdiv(tokens, self.block_t) * triton.cdiv(self.heads, self.block_h)


def tile_of(heads: int, width: int, all_heads: bool, rotated: bool) -> SideTile:
    block_d = triton.next_power_of_2(width)
    # Without a lane that has no head: 24 heads are three blocks of 8.
    block_h = triton.next_power_of_2(heads) if all_heads else max(1, min(heads & -heads, ELEMENTS // block_d))
    return SideTile(heads, all_heads, rotated, max(1, ELEMENTS // (block_h * block_d)), block_h, block_d)


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
    side, cos, sin, program, batch, T, eps,
    HALF: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, ALL_HEADS: tl.constexpr, ROTATED: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    HEAD_BLOCKS: tl.constexpr = (HEADS + BLOCK_H - 1) // BLOCK_H
    token = (program // HEAD_BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T)
    head = (program % HEAD_BLOCKS) * BLOCK_H + tl.arange(0, BLOCK_H)
    columns_inside = tl.arange(0, BLOCK_D) < D
    inside = (token < batch * side.length)[:, None, None] & (head < HEADS)[None, :, None]
    image, place = (token // side.length).to(tl.int64), token % side.length
    position = place + side.first_token
    sources = (image * side.batch_stride + place.to(tl.int64) * side.row_stride)[:, None, None] + head[None, :, None] * D
    rows = (image * T + position)[:, None, None] * HEADS + head[None, :, None]
    real, imaginary = load_pairs(side.x, sources, columns_inside, inside, HALF, D)
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
    if ROTATED:
        angles = position[:, None, None] * (D // 2) + pair
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
def qk_norm_rope_kernel(sides, cos, sin, batch, T, eps, HALF: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr):
    program = tl.program_id(0)
    for i in tl.static_range(len(TILES)):
        side = sides[i]
        if (program >= 0) & (program < side.programs):
            norm_rope_side(
                side, cos, sin, program, batch, T, eps,
                HALF, D, TILES[i][0], TILES[i][1], TILES[i][2], TILES[i][3], TILES[i][4], TILES[i][5],
            )  # fmt: skip
        program -= side.programs


class Stream(NamedTuple):
    """x [B, T, H, D], last dimension dense, becomes the tokens of y from first_token on."""

    x: Tensor
    weight: Tensor | None
    y: Tensor
    first_token: int = 0
    rotated: bool = True


def launch(streams: list[Stream], cos: Tensor, sin: Tensor, eps: float, rope: str) -> None:
    batch, tokens, _, width = streams[0].y.shape
    sides, tiles = [], []
    for x, weight, y, first_token, rotated in streams:
        x = x if x.stride()[2:] == (width, 1) else x.contiguous()
        length, heads = x.shape[1:3]
        tile = tile_of(heads, width, weight is not None and weight.shape[0] != width, rotated)
        tiles.append(tile)
        weight = None if weight is None else weight.contiguous()
        sides.append(Side(x, weight, y, length, first_token, *x.stride()[:2], tile.programs(batch * length)))
    qk_norm_rope_kernel[(sum(side.programs for side in sides),)](
        tuple(sides), cos.contiguous(), sin.contiguous(), batch, tokens, eps,
        HALF=rope == "half", D=width, TILES=tuple(map(tuple, tiles)),
        num_warps=max(1, min(16, max(tile.elements for tile in tiles) // 1024)),
    )  # fmt: skip


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
    outputs = q.new_empty(q.shape), k.new_empty(k.shape)
    launch([Stream(q, q_weight, outputs[0]), Stream(k, k_weight, outputs[1])], cos, sin, eps, rope)
    return outputs


def joint_qkv_norm_rope(
    first_q: Tensor,
    first_k: Tensor,
    first_v: Tensor,
    second_q: Tensor,
    second_k: Tensor,
    second_v: Tensor,
    first_q_weight: Tensor,
    first_k_weight: Tensor,
    second_q_weight: Tensor,
    second_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _, width = first_q.shape
    tokens = length + second_q.shape[1]
    q, k, v = (x.new_empty(batch, tokens, x.shape[2], width) for x in (first_q, first_k, first_v))
    streams = [
        Stream(first_q, first_q_weight, q), Stream(first_k, first_k_weight, k), Stream(first_v, None, v, rotated=False),
        Stream(second_q, second_q_weight, q, length), Stream(second_k, second_k_weight, k, length),
        Stream(second_v, None, v, length, rotated=False),
    ]  # fmt: skip
    launch(streams, cos, sin, eps, rope)
    return q, k, v
