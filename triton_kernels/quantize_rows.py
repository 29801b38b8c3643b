"""What the quantize kernels do with a tile of rows: read it, normalize it, smooth it, store its codes and scales."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .numbers import divide, round_to, widen
from .quantize_tile import eight_bit_codes, quantize_four_bits


class Norm(NamedTuple):
    """weight, bias [K]; mod_scale [M / scale_rows, K]; mod_shift [M / shift_rows, K]; of a group norm mean and rstd, float32
    [M / batch_rows, num_groups]."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    mod_scale: Tensor | None = None
    mod_shift: Tensor | None = None
    scale_rows: int = 1
    shift_rows: int = 1
    eps: float = 0.0
    mean: Tensor | None = None
    rstd: Tensor | None = None
    batch_rows: int = 1


class Quantization(NamedTuple):
    """smooth [K], proj_down [K, R]; qx int8, or uint8 bits of E4M3; ascales [G, padded_rows], E4M3 as uint8; low_rank_act [M, R]."""

    smooth: Tensor | None
    proj_down: Tensor | None
    shift: float
    qx: Tensor
    ascales: Tensor
    low_rank_act: Tensor
    padded_rows: int


@triton.jit
def load_tile(x, rows, columns, inside, row_stride, MASKED: tl.constexpr):
    pointers = x + rows.to(tl.int64)[:, None] * row_stride + columns[None, :]
    if MASKED:
        return tl.load(pointers, mask=inside[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def load_columns(values, offsets, inside, other: tl.constexpr, MASKED: tl.constexpr):
    if MASKED:
        return widen(tl.load(values + offsets, mask=inside, other=other))
    else:
        return widen(tl.load(values + offsets))


@triton.jit
def batch_of(rows, rows_each, UNIFORM: tl.constexpr):
    """The batch of each row [BLOCK_M, 1], or [1, 1] where the rows are known to share one."""
    if UNIFORM:
        rows = tl.min(rows, 0, keep_dims=True)
    return (rows // rows_each).to(tl.int64)[:, None]


@triton.jit
def normalize(
    tile, mean, rstd, norm, rows, columns, inside,
    NORM: tl.constexpr, NUM_GROUPS: tl.constexpr, SILU: tl.constexpr, K: tl.constexpr, UNIFORM: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The tile's norm and what modulates it, rounded to the tile's dtype."""
    y = widen(tile)
    if NORM == "group":
        groups = tl.minimum(columns, K - 1) // (K // NUM_GROUPS)
        statistic = batch_of(rows, norm.batch_rows, UNIFORM) * NUM_GROUPS + groups[None, :]
        y = (y - tl.load(norm.mean + statistic)) * tl.load(norm.rstd + statistic)
    elif NORM == "layer":
        y = (y - mean[:, None]) * rstd[:, None]
    else:
        y = y * rstd[:, None]
    if norm.weight is not None:
        y *= load_columns(norm.weight, columns, inside, 0.0, MASKED)[None, :]
    if norm.bias is not None:
        y += load_columns(norm.bias, columns, inside, 0.0, MASKED)[None, :]
    if norm.mod_scale is not None:
        offsets = batch_of(rows, norm.scale_rows, UNIFORM) * K + columns[None, :]
        y *= 1.0 + load_columns(norm.mod_scale, offsets, inside[None, :], 0.0, MASKED)
    if norm.mod_shift is not None:
        offsets = batch_of(rows, norm.shift_rows, UNIFORM) * K + columns[None, :]
        y += load_columns(norm.mod_shift, offsets, inside[None, :], 0.0, MASKED)
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    return round_to(y, tile.dtype)


@triton.jit
def smoothed(tile, quantization, columns, inside, SHIFTED: tl.constexpr, MASKED: tl.constexpr):
    """(tile + shift) / smooth in float32, 0 outside."""
    y = widen(tile)
    if SHIFTED:
        y += quantization.shift
    if quantization.smooth is not None:
        y = divide(y, load_columns(quantization.smooth, columns, inside, 1.0, MASKED)[None, :])
    if MASKED:
        y = tl.where(inside[None, :], y, 0.0)
    return y


@triton.jit
def store_scales(scales, quantization, rows, M, groups, inside):
    """scales [BLOCK_M, groups]; those of padding rows are 1."""
    own = (rows < M)[:, None]
    if scales.dtype == tl.uint8:
        scales = tl.where(own, scales, 0x38).to(tl.uint8)
    else:
        scales = round_to(tl.where(own, widen(scales), 1.0), scales.dtype)
    pointers = quantization.ascales + groups.to(tl.int64)[None, :] * quantization.padded_rows + rows[:, None]
    tl.store(pointers, scales, mask=(rows < quantization.padded_rows)[:, None] & inside[None, :])


@triton.jit
def store_four_bits(
    y, quantization, rows, M, first_column, last_column,
    FORMAT: tl.constexpr, UNSIGNED: tl.constexpr, FOUR_OVER_SIX: tl.constexpr, K: tl.constexpr, HARDWARE_E4M3: tl.constexpr,
):  # fmt: skip
    """Codes and scales of columns first_column..last_column - 1, both multiples of the group."""
    BLOCK_K: tl.constexpr = y.shape[1]
    codes, scales = quantize_four_bits(y, FORMAT, UNSIGNED, FOUR_OVER_SIX, quantization.ascales.dtype.element_ty, HARDWARE_E4M3)
    pairs = first_column // 2 + tl.arange(0, BLOCK_K // 2)
    pointers = quantization.qx + rows.to(tl.int64)[:, None] * (K // 2) + pairs[None, :]
    tl.store(pointers, codes, mask=(rows < M)[:, None] & (pairs < last_column // 2)[None, :])
    GROUP: tl.constexpr = 64 if FORMAT == "int4" else 16
    groups = first_column // GROUP + tl.arange(0, BLOCK_K // GROUP)
    store_scales(scales, quantization, rows, M, groups, groups < last_column // GROUP)


@triton.jit
def store_eight_bits(
    y, scale, quantization, rows, M, columns, inside, FORMAT: tl.constexpr, K: tl.constexpr, HARDWARE_E4M3: tl.constexpr
):
    codes = eight_bit_codes(y, scale[:, None], FORMAT, HARDWARE_E4M3)
    pointers = quantization.qx + rows.to(tl.int64)[:, None] * K + columns[None, :]
    tl.store(pointers, codes, mask=(rows < M)[:, None] & inside[None, :])
