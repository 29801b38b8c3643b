"""Adding partial sums in the order of their blocks, so that every run gives the same bits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .numbers import INTERPRETED, round_to

# In flight together: their loads do not wait for each other.
BLOCK_PARTS = tl.constexpr(16)


@triton.jit
def sum_partials_kernel(partials, out, parts, count, BLOCK: tl.constexpr):
    """out[i] = sum over the parts of partials[part, i]."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK_PARTS, BLOCK], tl.float32)
    for first in tl.range(0, parts, BLOCK_PARTS):
        part = first + tl.arange(0, BLOCK_PARTS)
        pointers = partials + part.to(tl.int64)[:, None] * count + offsets[None, :]
        total += tl.load(pointers, mask=(part < parts)[:, None] & (offsets < count)[None, :], other=0.0)
    tl.store(out + offsets, round_to(tl.sum(total, 0), out.dtype.element_ty), mask=offsets < count)


def sum_partials(partials: Tensor, dtype: torch.dtype) -> Tensor:
    """partials float32 [parts, ...] -> their sum [...] in dtype."""
    out = torch.empty(partials.shape[1:], dtype=dtype, device=partials.device)
    block = 4096 if INTERPRETED.value else 128
    if count := out.numel():
        sum_partials_kernel[(triton.cdiv(count, block),)](partials, out, partials.shape[0], count, BLOCK=block, num_warps=4)
    return out
