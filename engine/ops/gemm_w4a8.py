"""Matrix product of 8-bit activations and 4-bit weights, whose codes are folded to 8 bits in parts as the product goes along."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .checks import expect
from .fold_weight import fold_weight
from .gemm_w8a8 import format_of, gemm_w8a8
from .registry import Op


@Op
def gemm_w4a8(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    channel_scales: Tensor,
    product_scales: Tensor,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    fold_channels: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """`gemm_w8a8` by the codes of `fold_weight`, of which those of `fold_channels` output channels exist at a time: y [M, N].

    qx int8 or e4m3 [M, K], which qweight is folded to; ascales float32 [S, Mp]; qweight int8 [N, K/2] packed; wscales, and
    channel_scales float32 [N], as `fold_weight` takes them; product_scales float32 [N], the scales of the folded codes;
    low_rank_act [M, R]; proj_up [N, R]; bias [N].
    """
    parts = []
    for part in parts_of(qweight.shape[0], fold_channels):
        codes = fold_weight.reference(qweight[part], wscales[:, part], channel_scales[part], format_of(qx))
        rest = low_rank_act, proj_up[part], None if bias is None else bias[part], out_dtype
        parts.append(gemm_w8a8.reference(qx, ascales, codes, product_scales[part], *rest))
    return torch.cat(parts, 1)


def parts_of(n: int, fold_channels: int) -> Iterator[slice]:
    """The output channels that are folded together, one part after the other."""
    return (slice(first, min(first + fold_channels, n)) for first in range(0, n, fold_channels))


def as_product(qx, ascales, qweight, product_scales, low_rank_act, proj_up, bias, out_dtype) -> tuple:
    """The arguments of `gemm_w8a8` on all channels at once, with codes that have no memory."""
    codes = torch.empty(qweight.shape[0], 2 * qweight.shape[1], dtype=qx.dtype, device="meta")
    return qx, ascales, codes, product_scales, low_rank_act, proj_up, bias, out_dtype


@gemm_w4a8.set_fake
def fake(qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, bias, fold_channels, out_dtype):
    return qx.new_empty((qx.shape[0], qweight.shape[0]), dtype=out_dtype)


@gemm_w4a8.set_check
def check(qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, bias, fold_channels, out_dtype):
    fold_weight.check(qweight, wscales, channel_scales, format_of(qx))
    expect("product_scales", product_scales, (qweight.shape[0],), torch.float32)
    if fold_channels < 1:
        raise ValueError(f"fold_channels: at least 1 needed, got {fold_channels}")
    return gemm_w8a8.check(*as_product(qx, ascales, qweight, product_scales, low_rank_act, proj_up, bias, out_dtype))
