"""How the quantize kernels cut their work, a function of the sizes alone, and their launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from .numbers import INTERPRETED
from .quantize_kernels import held_rows_kernel, streamed_rows_kernel
from .quantize_rows import Norm, Quantization
from .tuning import capability_of, config_for

GROUP = {"int4": 64, "nvfp4": 16}
MOST_TILES = 16  # that a program holds: each is unrolled
MUCH_SHARED = ((8, 0), (9, 0), (10, 0))  # more shared memory than the 99 KiB of other GPUs
MOST_HELD = 16384  # columns of a row that a program holds
MOST_KEPT = 1024  # columns of 16-bit rows that are streamed: 64 registers of a thread, with which only sm_90 spills none


@dataclass(frozen=True)
class QuantizeConfig:
    """A program quantizes BLOCK_M rows in tiles of at most BLOCK_K columns.

    Of rows that are streamed: num_stages, and kept, the most columns that stay in registers.
    """

    BLOCK_M: int
    BLOCK_K: int
    num_warps: int
    num_stages: int = 1
    kept: int = 0


def quantize_default(m: int, n: int, k: int, capability: tuple[int, int]) -> QuantizeConfig:
    """For x [m, k] and rank n.

    Rows that are held: about 48 columns for each thread, which reads 16 bytes at once. Rows that are streamed: every program
    reads all of proj_down, so the more rows it has the better, as long as all multiprocessors have one.
    """
    if INTERPRETED.value:  # whose time is the number of programs
        return QuantizeConfig(64, 256, 4, kept=256)
    if n == 0:
        return QuantizeConfig(max(1, min(32, 8192 // triton.next_power_of_2(k))), 4096, 4 if k <= 4096 else 8)
    kept = MOST_KEPT if capability == (9, 0) else MOST_KEPT * 3 // 4
    if m < 2048:
        return QuantizeConfig(16, 128, 4, 3, kept)
    if m >= 8192:
        return QuantizeConfig(64, 128, 8, 3)
    return QuantizeConfig(32, 256 if capability in MUCH_SHARED else 128, 8, 3, kept)


def quantize_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> tuple[QuantizeConfig, ...]:
    """Those worth measuring."""
    if n == 0:
        return tuple(QuantizeConfig(rows, 4096, warps) for rows in (1, 2, 4) for warps in (4, 8))
    return tuple(
        QuantizeConfig(rows, 128, warps, stages, kept)
        for rows in (16, 32, 64) for kept in (0, MOST_KEPT) for warps in (4, 8, 16) for stages in (2, 3)
    )  # fmt: skip


def tile_width(width: int, limit: int) -> int:
    """The largest power of two whose tiles waste an eighth at most, or the least of all."""
    if INTERPRETED.value:  # whose time is the number of tiles
        return max(16, min(limit, triton.next_power_of_2(width)))
    sizes = [16]
    while sizes[-1] < min(width, limit):
        sizes.append(2 * sizes[-1])
    covered = {size: triton.cdiv(width, size) * size for size in reversed(sizes)}
    return next((size for size in covered if 8 * covered[size] <= 9 * width), min(covered, key=covered.get))


def span_width(k: int, group: int, limit: int) -> int:
    """Columns of the largest equal part of K that is whole groups and not over the limit."""
    parts = next(p for p in range(1, k // group + 1) if k // group % p == 0 and (k // p <= limit or k // p == group))
    return k // parts


def holds_rows(k: int, rank: int, segments: int) -> bool:
    """Whether the rows stay in registers: nothing is projected down, and they fit."""
    tiles = segments * triton.cdiv(k // segments, tile_width(k // segments, 4096))
    return rank == 0 and k <= MOST_HELD and tiles <= MOST_TILES


def quantize_rows(
    x: Tensor,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
    norm: Norm | None = None,
    kind: str = "none",
    num_groups: int = 1,
    silu: bool = False,
    config: QuantizeConfig | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch one of the kernels on x [M, K]. kind: "none", "layer", "rms" or "group", with its operands in norm."""
    m, k = x.shape
    rank = 0 if proj_down is None else proj_down.shape[1]
    capability = capability_of(x.device)
    config = config or config_for("quantize", x.device, f"{format}-{kind}", m, rank, k, quantize_default, quantize_configs)
    four_bits, padded_rows = format in GROUP, triton.cdiv(m, 8) * 8
    x = x if x.stride(1) == 1 or not k else x.contiguous()
    qx = torch.empty(m, k // 2 if four_bits else k, dtype=torch.uint8 if format == "fp8" else torch.int8, device=x.device)
    scale_dtype = {"int4": x.dtype, "nvfp4": torch.uint8}.get(format, torch.float32)
    ascales = torch.empty(k // GROUP[format] if four_bits else segments, padded_rows, dtype=scale_dtype, device=x.device)
    low_rank_act = x.new_empty(m, rank)
    held = holds_rows(k, rank, segments)
    width, spans, programs = k // segments, segments, 1
    if held and kind in ("none", "group"):
        width = span_width(k, GROUP[format], config.BLOCK_K) if four_bits else width
        spans, programs = 1, k // width
    norm = norm or Norm()
    by_batch = (norm.mod_scale, norm.scale_rows), (norm.mod_shift, norm.shift_rows), (norm.mean, norm.batch_rows)
    ranks = max(16, triton.next_power_of_2(rank))
    limit = config.BLOCK_K
    # Segments are short, and near still when they are read again; what norms need leaves no registers.
    keeps = segments == 1 and kind == "none" and not four_bits
    if not held:  # 16 KiB of proj_down a stage; wider tiles would spill registers where others are kept, of a norm or of nvfp4
        least_registers = min(128, 4096 // config.BLOCK_M)
        limit = min(limit, max(64, 8192 // ranks), least_registers if keeps or kind != "none" or format == "nvfp4" else limit)
    block_k = tile_width(width, limit)
    rows_each = [rows for tensor, rows in by_batch if tensor is not None]
    constants = dict(
        FORMAT=format, UNSIGNED=unsigned, FOUR_OVER_SIX=four_over_six, SHIFTED=shift != 0, NORM=kind, NUM_GROUPS=num_groups,
        SILU=silu, UNIFORM=all(rows == m or rows % config.BLOCK_M == 0 for rows in rows_each),
        HARDWARE_E4M3=capability >= (8, 9), K=k, WIDTH=width, SPANS=spans, BLOCK_M=config.BLOCK_M,
        BLOCK_K=block_k, num_warps=config.num_warps,
    )  # fmt: skip
    dense = (None if tensor is None else tensor.contiguous() for tensor in (smooth, proj_down))
    quantization = Quantization(*dense, shift, qx, ascales, low_rank_act, padded_rows)
    operands = x, norm, quantization, m, x.stride(0)
    blocks = triton.cdiv(padded_rows, config.BLOCK_M)
    if held:
        held_rows_kernel[(blocks, programs)](*operands, **constants)
    else:
        stages = config.num_stages if x.dtype.itemsize == 2 else 1
        kept = min(config.kept * 2 // x.dtype.itemsize // block_k, triton.cdiv(width, block_k)) if keeps else 0
        streamed_rows_kernel[(blocks,)](*operands, **constants, RANK=rank, BLOCK_R=ranks, KEPT=kept, STAGES=stages)
    codes = qx.view(torch.float8_e4m3fn) if format == "fp8" else qx
    return codes, ascales.view(torch.float8_e4m3fn) if format == "nvfp4" else ascales, low_rank_act
