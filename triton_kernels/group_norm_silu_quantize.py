"""GroupNorm and SiLU over channels-last pixels, then `quantize_act`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .numbers import INTERPRETED, widen
from .quantize_launch import quantize_rows
from .quantize_rows import Norm

# Of a program; the interpreter's time is the number of programs.
PIXELS, CHANNELS, GROUPS = (256, 256, 32) if INTERPRETED.value else (64, 64, 1)


@triton.jit
def channel_statistics_kernel(x, means, squares, P, C, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """x [B, P, C] -> mean and sum of centred squares of each channel in every BLOCK_P pixels, [B, cdiv(P, BLOCK_P), C]."""
    pixels = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (pixels < P)[:, None] & (channels < C)[None, :]
    offsets = (tl.program_id(2).to(tl.int64) * P + pixels)[:, None] * C + channels[None, :]
    y = widen(tl.load(x + offsets, mask=inside, other=0.0))
    mean = tl.sum(y, 0) / tl.minimum(P - tl.program_id(0) * BLOCK_P, BLOCK_P)
    centred = tl.where(inside, y - mean[None, :], 0.0)
    out = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * C + channels
    tl.store(means + out, mean, mask=channels < C)
    tl.store(squares + out, tl.sum(centred * centred, 0), mask=channels < C)


@triton.jit
def load_parts(values, base, groups, first, channels, C: tl.constexpr, WIDTH: tl.constexpr, inside):
    parts = first + tl.arange(0, inside.shape[1])
    offsets = base + parts[None, :, None] * C + groups[:, None, None] * WIDTH + channels[None, None, :]
    return tl.load(values + offsets, mask=inside, other=0.0)


@triton.jit
def group_statistics_kernel(
    means, squares, mean, rstd, eps, P,
    C: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, PIXELS: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The partial statistics of BLOCK_G groups of WIDTH channels, added up in a fixed order, to their means and 1 / deviations."""
    groups = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    channels = tl.arange(0, BLOCK_C)
    own = (groups < C // WIDTH)[:, None, None] & (channels < WIDTH)[None, None, :]
    base = tl.program_id(1).to(tl.int64) * PARTS * C
    count = 1.0 * WIDTH * P
    total = tl.zeros([BLOCK_G, BLOCK, BLOCK_C], tl.float32)
    for first in range(0, PARTS, BLOCK):
        parts = first + tl.arange(0, BLOCK)
        pixels = tl.minimum(P - parts * PIXELS, PIXELS)[None, :, None]
        inside = own & (parts < PARTS)[None, :, None]
        total += pixels * load_parts(means, base, groups, first, channels, C, WIDTH, inside)
    group_mean = tl.sum(tl.sum(total, 2), 1) / count
    total = tl.zeros([BLOCK_G, BLOCK, BLOCK_C], tl.float32)
    for first in range(0, PARTS, BLOCK):
        parts = first + tl.arange(0, BLOCK)
        pixels = tl.minimum(P - parts * PIXELS, PIXELS)[None, :, None]
        inside = own & (parts < PARTS)[None, :, None]
        moved = load_parts(means, base, groups, first, channels, C, WIDTH, inside) - group_mean[:, None, None]
        spread = load_parts(squares, base, groups, first, channels, C, WIDTH, inside) + pixels * moved * moved
        total += tl.where(inside, spread, 0.0)
    out = tl.program_id(1) * (C // WIDTH) + groups
    tl.store(mean + out, group_mean, mask=groups < C // WIDTH)
    tl.store(rstd + out, tl.rsqrt(tl.sum(tl.sum(total, 2), 1) / count + eps), mask=groups < C // WIDTH)


def group_statistics(x: Tensor, num_groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """x [B, P, C], dense -> mean and 1 / deviation of each group, float32 [B, num_groups]."""
    batch, pixels, channels = x.shape
    parts, width = triton.cdiv(pixels, PIXELS), channels // num_groups
    means, squares = x.new_empty(2, batch, parts, channels, dtype=torch.float32)
    mean, rstd = x.new_empty(2, batch, num_groups, dtype=torch.float32)
    grid = parts, triton.cdiv(channels, CHANNELS), batch
    channel_statistics_kernel[grid](x, means, squares, pixels, channels, BLOCK_P=PIXELS, BLOCK_C=CHANNELS)
    group_statistics_kernel[(triton.cdiv(num_groups, GROUPS), batch)](
        means, squares, mean, rstd, eps, pixels,
        C=channels, WIDTH=width, PARTS=parts, PIXELS=PIXELS, BLOCK_G=GROUPS,
        BLOCK=min(32, triton.next_power_of_2(parts)), BLOCK_C=triton.next_power_of_2(width),
    )  # fmt: skip
    return mean, rstd


def group_norm_silu_quantize(
    x: Tensor,
    num_groups: int,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    silu: bool,
    *quantize_args,
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    dense = (None if tensor is None else tensor.contiguous() for tensor in (weight, bias))
    mean, rstd = group_statistics(x, num_groups, eps)
    norm = Norm(*dense, eps=eps, mean=mean, rstd=rstd, batch_rows=x.shape[1])
    return quantize_rows(x.flatten(0, 1), *quantize_args, norm=norm, kind="group", num_groups=num_groups, silu=silu)
