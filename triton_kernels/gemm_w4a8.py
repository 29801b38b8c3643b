"""gemm_w4a8: a part of the weight is folded, and multiplied while its codes are still in the L2 cache."""

from __future__ import annotations

import torch
from torch import Tensor

from .fold_weight import fold_weight
from .gemm_w8a8 import gemm_w8a8_into


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
    n, format = qweight.shape[0], "fp8" if qx.dtype == torch.float8_e4m3fn else "int8"
    out = torch.empty(qx.shape[0], n, dtype=out_dtype, device=qx.device)
    for first in range(0, n, fold_channels):
        part = slice(first, min(first + fold_channels, n))
        codes = fold_weight(qweight[part], wscales[:, part], channel_scales[part], format)
        rest = low_rank_act, proj_up[part], None if bias is None else bias[part]
        gemm_w8a8_into(out[:, part], qx, ascales, codes, product_scales[part], *rest)
    return out
