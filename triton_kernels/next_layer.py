"""Quantizing a tile of outputs for the next layer before they reach memory, and its share of that layer's down projection."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .low_rank import low_rank_block
from .numbers import dot, magnitude_bits
from .one_launch import GROUP_SIZE, QuantizeArgs
from .quantize_rows import smoothed, store_eight_bits, store_four_bits, store_scales
from .quantize_tile import eight_bit_scale
from .sum_partials import sum_partials
from .tuning import capability_of

TRITON_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class NextLayer(NamedTuple):
    """The operands of `quantize_act` on the outputs [M, WIDTH], of one K-segment's or group's SCALE_COLUMNS columns each.

    smooth [WIDTH]; proj_down [WIDTH, RANK]; qx; ascales [G, padded_rows]; partials float32 [tiles of columns, M, RANK]. E4M3 is
    passed as uint8. DTYPE: what the outputs are rounded to before.
    """

    smooth: Tensor | None
    proj_down: Tensor | None
    shift: float
    qx: Tensor
    ascales: Tensor
    partials: Tensor | None
    padded_rows: int
    DTYPE: tl.constexpr
    WIDTH: tl.constexpr
    SCALE_COLUMNS: tl.constexpr
    PART: tl.constexpr
    RANK: tl.constexpr
    BLOCK_R: tl.constexpr
    FORMAT: tl.constexpr
    UNSIGNED: tl.constexpr
    FOUR_OVER_SIX: tl.constexpr
    SHIFTED: tl.constexpr
    HARDWARE_E4M3: tl.constexpr

    def outputs(self, m: int, out_dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """What `quantize_act` returns, after the product's launch."""
        codes = self.qx.view(torch.float8_e4m3fn) if self.FORMAT.value == "fp8" else self.qx
        ascales = self.ascales.view(torch.float8_e4m3fn) if self.FORMAT.value == "nvfp4" else self.ascales
        if self.partials is None:
            return codes, ascales, torch.empty(m, 0, dtype=out_dtype, device=codes.device)
        return codes, ascales, sum_partials(self.partials, out_dtype)


def next_layer(m: int, width: int, tiles: int, out_dtype: torch.dtype, device: torch.device, args: QuantizeArgs) -> NextLayer:
    """Fresh outputs for the activation [m, width], and what describes them to the kernel. tiles: of a row of the product."""
    rank, padded_rows, columns = args.rank, triton.cdiv(m, 8) * 8, args.columns_of_scale(width)
    code_dtype = torch.uint8 if args.format == "fp8" else torch.int8
    scale_dtype = {"int4": out_dtype, "nvfp4": torch.uint8}.get(args.format, torch.float32)
    dense = (None if tensor is None else tensor.contiguous() for tensor in (args.smooth, args.proj_down if rank else None))
    constants = (
        TRITON_DTYPES[out_dtype], width, columns, 32 if args.format == "nvfp4" else min(64, columns), rank, low_rank_block(rank),
        args.format, args.unsigned, args.four_over_six, args.shift != 0, capability_of(device) >= (8, 9),
    )  # fmt: skip
    return NextLayer(
        *dense,
        args.shift,
        torch.empty(m, width // 2 if args.format in GROUP_SIZE else width, dtype=code_dtype, device=device),
        torch.empty(width // columns, padded_rows, dtype=scale_dtype, device=device),
        torch.empty(tiles, m, rank, dtype=torch.float32, device=device) if rank else None,
        padded_rows,
        *map(tl.constexpr, constants),
    )


@triton.jit
def quantize_tile(parts, rows, tile_n, M, next):
    """parts: a tile's outputs in the dtype of activations, as many columns each and next to each other."""
    PARTS: tl.constexpr = len(parts)
    PART: tl.constexpr = parts[0].shape[1]
    MASKED: tl.constexpr = next.WIDTH % (PARTS * PART) != 0
    first_column = tile_n * (PARTS * PART)
    if next.partials is not None:
        for first_rank in tl.range(0, next.RANK, next.BLOCK_R, num_stages=1):
            project_down(parts, rows, first_column, tile_n, M, first_rank, next, MASKED)
    if next.FORMAT == "int4" or next.FORMAT == "nvfp4":
        for i in tl.static_range(PARTS):
            columns = first_column + i * PART + tl.arange(0, PART)
            y = smoothed(parts[i], next, columns, columns < next.WIDTH, next.SHIFTED, MASKED)
            store_four_bits(
                y, next, rows, M, first_column + i * PART, next.WIDTH, next.FORMAT, next.UNSIGNED, next.FOUR_OVER_SIX,
                next.WIDTH, next.HARDWARE_E4M3,
            )  # fmt: skip
    else:
        for segment in tl.static_range(PARTS * PART // next.SCALE_COLUMNS):
            quantize_segment(parts, segment, rows, first_column, M, next, MASKED)


@triton.jit
def quantize_segment(parts, segment: tl.constexpr, rows, first_column, M, next, MASKED: tl.constexpr):
    """8-bit codes of the segment's parts, with one scale."""
    PART: tl.constexpr = parts[0].shape[1]
    EACH: tl.constexpr = next.SCALE_COLUMNS // PART
    peaks = tl.zeros([parts[0].shape[0], PART], tl.int32)
    for i in tl.static_range(EACH):
        columns = first_column + (segment * EACH + i) * PART + tl.arange(0, PART)
        y = smoothed(parts[segment * EACH + i], next, columns, columns < next.WIDTH, next.SHIFTED, MASKED)
        peaks = tl.maximum(peaks, magnitude_bits(y))
    scale = eight_bit_scale(tl.max(peaks, 1), next.FORMAT)
    index = first_column // next.SCALE_COLUMNS + segment + tl.arange(0, 1)
    store_scales(scale[:, None], next, rows, M, index, index < next.WIDTH // next.SCALE_COLUMNS)
    for i in tl.static_range(EACH):
        columns = first_column + (segment * EACH + i) * PART + tl.arange(0, PART)
        inside = columns < next.WIDTH
        y = smoothed(parts[segment * EACH + i], next, columns, inside, next.SHIFTED, MASKED)
        store_eight_bits(y, scale, next, rows, M, columns, inside, next.FORMAT, next.WIDTH, next.HARDWARE_E4M3)


@triton.jit
def project_down(parts, rows, first_column, tile_n, M, first_rank, next, MASKED: tl.constexpr):
    """The tile's share of BLOCK_R ranks."""
    PART: tl.constexpr = parts[0].shape[1]
    ranks = first_rank + tl.arange(0, next.BLOCK_R)
    total = tl.zeros([parts[0].shape[0], next.BLOCK_R], tl.float32)
    for i in tl.static_range(len(parts)):
        columns = first_column + i * PART + tl.arange(0, PART)
        inside = columns < next.WIDTH
        pointers = next.proj_down + columns[:, None] * next.RANK + ranks[None, :]
        down = tl.load(pointers, mask=inside[:, None] & (ranks < next.RANK)[None, :], other=0.0)
        part = parts[i]
        if MASKED:  # a column outside repeats another, which may be infinite
            part = tl.where(inside[None, :], part, 0.0).to(part.dtype)
        total = dot(part, down, total)
    pointers = next.partials + (tile_n.to(tl.int64) * M + rows[:, None]) * next.RANK + ranks[None, :]
    tl.store(pointers, total, mask=(rows < M)[:, None] & (ranks < next.RANK)[None, :])
