"""The two quantize kernels: one holds its rows in registers and reads them once, one streams them and projects them down."""

from __future__ import annotations

import triton
import triton.language as tl

from .numbers import dot, magnitude_bits, round_to, widen
from .quantize_rows import load_tile, normalize, smoothed, store_eight_bits, store_four_bits, store_scales
from .quantize_tile import eight_bit_scale


@triton.jit
def tile_columns(span, tile, WIDTH: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns of a tile and which of them are in its span."""
    within = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    return span * WIDTH + within, within < WIDTH


@triton.jit
def held_rows_kernel(
    x, norm, quantization, M, row_stride,
    FORMAT: tl.constexpr, UNSIGNED: tl.constexpr, FOUR_OVER_SIX: tl.constexpr, SHIFTED: tl.constexpr,
    NORM: tl.constexpr, NUM_GROUPS: tl.constexpr, SILU: tl.constexpr, UNIFORM: tl.constexpr, HARDWARE_E4M3: tl.constexpr,
    K: tl.constexpr, WIDTH: tl.constexpr, SPANS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A program quantizes SPANS spans of WIDTH columns, all of them when the rows are to be normalized, in BLOCK_M rows."""
    MASKED: tl.constexpr = WIDTH % BLOCK_K != 0
    TILES: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K
    EIGHT_BITS: tl.constexpr = FORMAT == "int8" or FORMAT == "fp8"
    # Divided only once where that costs more than the registers for it.
    DIVIDED: tl.constexpr = EIGHT_BITS and (SHIFTED or quantization.smooth is not None)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    read = tl.minimum(rows, M - 1)
    first_span = tl.program_id(1) * SPANS

    tiles = ()
    for i in tl.static_range(SPANS * TILES):
        columns, inside = tile_columns(first_span + i // TILES, i % TILES, WIDTH, BLOCK_K)
        tiles += (load_tile(x, read, columns, inside, row_stride, MASKED),)

    if NORM != "none":
        mean = tl.zeros([BLOCK_M], tl.float32)
        if NORM == "layer":
            total = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
            for i in tl.static_range(SPANS * TILES):
                total += widen(tiles[i])
            mean = tl.sum(total, 1) / K
        rstd = mean
        if NORM != "group":
            squares = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
            for i in tl.static_range(SPANS * TILES):
                columns, inside = tile_columns(first_span + i // TILES, i % TILES, WIDTH, BLOCK_K)
                centred = tl.where(inside[None, :], widen(tiles[i]) - mean[:, None], 0.0)
                squares += centred * centred
            rstd = tl.rsqrt(tl.sum(squares, 1) / K + norm.eps)
        normalized = ()
        for i in tl.static_range(SPANS * TILES):
            columns, inside = tile_columns(first_span + i // TILES, i % TILES, WIDTH, BLOCK_K)
            y = normalize(
                tiles[i], mean, rstd, norm, read, columns, inside, NORM, NUM_GROUPS, SILU, K, UNIFORM, MASKED
            )
            normalized += (y,)
        tiles = normalized

    if DIVIDED:
        divided = ()
        for i in tl.static_range(SPANS * TILES):
            columns, inside = tile_columns(first_span + i // TILES, i % TILES, WIDTH, BLOCK_K)
            divided += (smoothed(tiles[i], quantization, columns, inside, SHIFTED, MASKED),)
        tiles = divided

    for s in tl.static_range(SPANS):
        span = first_span + s
        if EIGHT_BITS:
            peaks = tl.zeros([BLOCK_M, BLOCK_K], tl.int32)
            for i in tl.static_range(TILES):
                y = tiles[s * TILES + i]
                if not DIVIDED:
                    columns, inside = tile_columns(span, i, WIDTH, BLOCK_K)
                    y = smoothed(y, quantization, columns, inside, SHIFTED, MASKED)
                peaks = tl.maximum(peaks, magnitude_bits(y))
            scale = eight_bit_scale(tl.max(peaks, 1), FORMAT)
            store_scales(scale[:, None], quantization, rows, M, span + tl.arange(0, 1), tl.full([1], True, tl.int1))
        for i in tl.static_range(TILES):
            columns, inside = tile_columns(span, i, WIDTH, BLOCK_K)
            y = tiles[s * TILES + i]
            if not DIVIDED:
                y = smoothed(y, quantization, columns, inside, SHIFTED, MASKED)
            if EIGHT_BITS:
                store_eight_bits(y, scale, quantization, rows, M, columns, inside, FORMAT, K, HARDWARE_E4M3)
            else:
                first_column = span * WIDTH + i * BLOCK_K
                store_four_bits(
                    y, quantization, rows, M, first_column, (span + 1) * WIDTH, FORMAT, UNSIGNED, FOUR_OVER_SIX, K, HARDWARE_E4M3
                )


@triton.jit
def load_down(quantization, columns, inside, RANK: tl.constexpr, BLOCK_R: tl.constexpr, MASKED: tl.constexpr):
    """proj_down [columns, BLOCK_R]"""
    ranks = tl.arange(0, BLOCK_R)
    pointers = quantization.proj_down + columns[:, None] * RANK + ranks[None, :]
    if MASKED or RANK != BLOCK_R:
        return tl.load(pointers, mask=inside[:, None] & (ranks < RANK)[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def first_tiles(x, rows, row_stride, COUNT: tl.constexpr, WIDTH: tl.constexpr, BLOCK_K: tl.constexpr):
    tiles = ()
    for i in tl.static_range(COUNT):
        columns, inside = tile_columns(0, i, WIDTH, BLOCK_K)
        tiles += (load_tile(x, rows, columns, inside, row_stride, WIDTH % BLOCK_K != 0),)
    return tiles


@triton.jit
def streamed_statistics(
    x, rows, row_stride, eps, NORM: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, SPANS: tl.constexpr,
    BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Mean, 0 of an RMS norm, and reciprocal deviation of each row, which is read once.

    Squares are of distances from the first tile's mean. It is off by at most the root of K / BLOCK_K deviations, so what is taken
    off the squares again cannot drown the variance.
    """
    MASKED: tl.constexpr = WIDTH % BLOCK_K != 0
    TILES: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K
    shift = tl.zeros([rows.shape[0]], tl.float32)
    if NORM == "layer":
        columns, inside = tile_columns(0, 0, WIDTH, BLOCK_K)
        FIRST: tl.constexpr = WIDTH if WIDTH < BLOCK_K else BLOCK_K
        shift = tl.sum(widen(load_tile(x, rows, columns, inside, row_stride, MASKED)), 1) / FIRST
    total = tl.zeros([rows.shape[0], BLOCK_K], tl.float32)
    squares = total
    for i in tl.range(SPANS * TILES, num_stages=STAGES):
        columns, inside = tile_columns(i // TILES, i % TILES, WIDTH, BLOCK_K)
        y = widen(load_tile(x, rows, columns, inside, row_stride, MASKED))
        if NORM == "layer":
            y = tl.where(inside[None, :], y - shift[:, None], 0.0)
            total += y
        squares += y * y
    from_shift = tl.sum(total, 1) / K
    variance = tl.sum(squares, 1) / K - from_shift * from_shift
    return shift + from_shift, tl.rsqrt(tl.where(variance < 0, 0.0, variance) + eps)


@triton.jit
def streamed_rows_kernel(
    x, norm, quantization, M, row_stride,
    FORMAT: tl.constexpr, UNSIGNED: tl.constexpr, FOUR_OVER_SIX: tl.constexpr, SHIFTED: tl.constexpr,
    NORM: tl.constexpr, NUM_GROUPS: tl.constexpr, SILU: tl.constexpr, UNIFORM: tl.constexpr, HARDWARE_E4M3: tl.constexpr,
    K: tl.constexpr, WIDTH: tl.constexpr, SPANS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
    RANK: tl.constexpr, BLOCK_R: tl.constexpr, KEPT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A program quantizes BLOCK_M rows and projects them down; what it reads a second time comes from L2.

    KEPT: the first tiles of a row, which stay in registers; of rows in 8 bits that are one span and have no norm.
    """
    tl.static_assert(KEPT == 0 or SPANS == 1 and NORM == "none" and (FORMAT == "int8" or FORMAT == "fp8"))
    MASKED: tl.constexpr = WIDTH % BLOCK_K != 0
    TILES: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K
    EIGHT_BITS: tl.constexpr = FORMAT == "int8" or FORMAT == "fp8"
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    read = tl.minimum(rows, M - 1)

    kept = first_tiles(x, read, row_stride, KEPT, WIDTH, BLOCK_K)
    mean = tl.zeros([BLOCK_M], tl.float32)
    rstd = mean
    if NORM == "layer" or NORM == "rms":
        mean, rstd = streamed_statistics(x, read, row_stride, norm.eps, NORM, K, WIDTH, SPANS, BLOCK_K, STAGES)

    low_rank = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
    for span in range(SPANS):
        peaks = tl.zeros([BLOCK_M, BLOCK_K], tl.int32)
        for i in tl.range(KEPT, TILES, num_stages=STAGES):
            columns, inside = tile_columns(span, i, WIDTH, BLOCK_K)
            tile = load_tile(x, read, columns, inside, row_stride, MASKED)
            if NORM != "none":
                tile = normalize(tile, mean, rstd, norm, read, columns, inside, NORM, NUM_GROUPS, SILU, K, UNIFORM, MASKED)
            if RANK > 0:
                low_rank = dot(tile, load_down(quantization, columns, inside, RANK, BLOCK_R, MASKED), low_rank)
            y = smoothed(tile, quantization, columns, inside, SHIFTED, MASKED)
            if EIGHT_BITS:
                peaks = tl.maximum(peaks, magnitude_bits(y))
            else:
                first_column = span * WIDTH + i * BLOCK_K
                store_four_bits(
                    y, quantization, rows, M, first_column, (span + 1) * WIDTH, FORMAT, UNSIGNED, FOUR_OVER_SIX, K, HARDWARE_E4M3
                )
        for j in tl.static_range(KEPT):
            columns, inside = tile_columns(0, j, WIDTH, BLOCK_K)
            if RANK > 0:
                low_rank = dot(kept[j], load_down(quantization, columns, inside, RANK, BLOCK_R, MASKED), low_rank)
            peaks = tl.maximum(peaks, magnitude_bits(smoothed(kept[j], quantization, columns, inside, SHIFTED, MASKED)))
        if EIGHT_BITS:
            scale = eight_bit_scale(tl.max(peaks, 1), FORMAT)
            store_scales(scale[:, None], quantization, rows, M, span + tl.arange(0, 1), tl.full([1], True, tl.int1))
            for j in tl.static_range(KEPT):
                columns, inside = tile_columns(0, j, WIDTH, BLOCK_K)
                y = smoothed(kept[j], quantization, columns, inside, SHIFTED, MASKED)
                store_eight_bits(y, scale, quantization, rows, M, columns, inside, FORMAT, K, HARDWARE_E4M3)
            for i in tl.range(TILES - KEPT, num_stages=STAGES):  # from the columns read last, which are still near
                columns, inside = tile_columns(span, TILES - 1 - i, WIDTH, BLOCK_K)
                tile = load_tile(x, read, columns, inside, row_stride, MASKED)
                if NORM != "none":
                    tile = normalize(tile, mean, rstd, norm, read, columns, inside, NORM, NUM_GROUPS, SILU, K, UNIFORM, MASKED)
                y = smoothed(tile, quantization, columns, inside, SHIFTED, MASKED)
                store_eight_bits(y, scale, quantization, rows, M, columns, inside, FORMAT, K, HARDWARE_E4M3)
    if RANK > 0:
        ranks = tl.arange(0, BLOCK_R)
        pointers = quantization.low_rank_act + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
        low_rank = round_to(low_rank, quantization.low_rank_act.dtype.element_ty)
        tl.store(pointers, low_rank, mask=(rows < M)[:, None] & (ranks < RANK)[None, :])
