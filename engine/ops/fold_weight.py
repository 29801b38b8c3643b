"""4-bit codes and their group scales as 8-bit codes under one given scale per output channel."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight, fp8, int8
from .checks import expect, expect_dim, expect_divides, expect_one_of
from .gemm_w4a16 import format_of
from .operands import CODE_DTYPE, CODES_PER_ELEMENT, GROUP_SIZE, SCALE_DTYPES
from .registry import Op

ENCODE = {"int8": int8.to_int8, "fp8": fp8.to_e4m3}


@Op
def fold_weight(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> Tensor:
    """Round code * (wscale / channel_scale) to int8 or e4m3, all in float32: [N, K].

    qweight int8 [N, K/2] packed; wscales [K/64, N] for int4, e4m3 [K/16, N] for nvfp4, whose outer scale stays with the product;
    channel_scales float32 [N], in units of that outer scale; format "int8" or "fp8". Larger values saturate.
    """
    ratio = wscales.float() / channel_scales
    return ENCODE[format](dequantize_weight(qweight, ratio, torch.ones((), device=qweight.device), format_of(wscales)))


@fold_weight.set_fake
def fake(qweight, wscales, channel_scales, format):
    source = format_of(wscales)
    return qweight.new_empty((qweight.shape[0], qweight.shape[1] * CODES_PER_ELEMENT[source]), dtype=CODE_DTYPE[format])


@fold_weight.set_check
def check(qweight, wscales, channel_scales, format):
    expect_one_of("format", format, tuple(ENCODE))
    source = format_of(wscales)
    expect_dim("qweight", qweight, 2, CODE_DTYPE[source])
    n, k = qweight.shape[0], qweight.shape[1] * CODES_PER_ELEMENT[source]
    expect_divides("qweight", k, GROUP_SIZE[source], "K")
    expect("wscales", wscales, (k // GROUP_SIZE[source], n), *SCALE_DTYPES[source])
    expect("channel_scales", channel_scales, (n,), torch.float32)
