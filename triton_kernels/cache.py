"""The arithmetic of feature caches, memory-bound and in float32 inside."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .numbers import round_to, widen

BLOCK = 4096  # elements of a program, 16 for each thread of 8 warps
WARPS = 8
BLOCK_C = 1024


@triton.jit
def load_block(values, offsets, inside):
    return widen(tl.load(values + offsets, mask=inside, other=0.0))


@triton.jit
def flat_block(numel, BLOCK: tl.constexpr):
    """Offsets of the program's elements, and which of them exist."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return offsets, offsets < numel


@triton.jit
def partial_l1_kernel(value, base, sums, numel, BLOCK: tl.constexpr):
    """sums [2, programs]: of |value - base| and of |base| over each program's elements."""
    offsets, inside = flat_block(numel, BLOCK)
    x, b = load_block(value, offsets, inside), load_block(base, offsets, inside)
    program = tl.program_id(0)
    tl.store(sums + program, tl.sum(tl.abs(x - b), 0))
    tl.store(sums + tl.num_programs(0) + program, tl.sum(tl.abs(b), 0))


@triton.jit
def total_l1_kernel(sums, out, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Adds the partial sums in a fixed order."""
    moved, size = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for first in range(0, PARTS, BLOCK):
        parts = first + tl.arange(0, BLOCK)
        moved += load_block(sums, parts, parts < PARTS)
        size += load_block(sums + PARTS, parts, parts < PARTS)
    tl.store(out, tl.div_rn(tl.sum(moved, 0), tl.sum(size, 0)))


@triton.jit
def add_kernel(x, delta, out, numel, BLOCK: tl.constexpr):
    offsets, inside = flat_block(numel, BLOCK)
    y = load_block(x, offsets, inside) + load_block(delta, offsets, inside)
    tl.store(out + offsets, round_to(y, out.dtype.element_ty), mask=inside)


@triton.jit
def affine_kernel(x, scale, shift, out, rows, C, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    offsets = row.to(tl.int64)[:, None] * C + channel[None, :]
    inside = (row < rows)[:, None] & (channel < C)[None, :]
    y = load_block(x, offsets, inside) * load_block(scale, channel, channel < C)[None, :]
    y += load_block(shift, channel, channel < C)[None, :]
    tl.store(out + offsets, round_to(y, out.dtype.element_ty), mask=inside)


@triton.jit
def weighted_sum_kernel(history, coefficients, out, numel, BLOCK: tl.constexpr):
    offsets, inside = flat_block(numel, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(len(history)):
        total += tl.load(coefficients + i) * load_block(history[i], offsets, inside)
    tl.store(out + offsets, round_to(total, out.dtype.element_ty), mask=inside)


def rel_l1(value: Tensor, base: Tensor) -> Tensor:
    parts = triton.cdiv(value.numel(), BLOCK)
    sums = torch.empty(2, parts, dtype=torch.float32, device=value.device)
    out = torch.empty((), dtype=torch.float32, device=value.device)
    partial_l1_kernel[(parts,)](value.contiguous(), base.contiguous(), sums, value.numel(), BLOCK=BLOCK, num_warps=WARPS)
    total_l1_kernel[(1,)](sums, out, PARTS=parts, BLOCK=1024)
    return out


def delta_apply(hidden_states: Tensor, delta: Tensor) -> Tensor:
    x, delta = hidden_states.contiguous(), delta.contiguous()
    out = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, delta, out, x.numel(), BLOCK=BLOCK, num_warps=WARPS)
    return out


def affine_correct(hidden_states: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    x, channels = hidden_states.contiguous(), hidden_states.shape[-1]
    out, rows = torch.empty_like(x), x.numel() // channels
    columns = min(BLOCK_C, triton.next_power_of_2(channels))
    grid = triton.cdiv(rows, BLOCK // columns), triton.cdiv(channels, columns)
    affine_kernel[grid](
        x, scale.contiguous(), shift.contiguous(), out, rows, channels, BLOCK_M=BLOCK // columns, BLOCK_C=columns, num_warps=WARPS
    )
    return out


def forecast(history: list[Tensor], coefficients: Tensor) -> Tensor:
    dense = tuple(past.contiguous() for past in history)
    out = torch.empty_like(dense[0])
    grid = (triton.cdiv(out.numel(), BLOCK),)
    weighted_sum_kernel[grid](dense, coefficients.contiguous(), out, out.numel(), BLOCK=BLOCK, num_warps=WARPS)
    return out
