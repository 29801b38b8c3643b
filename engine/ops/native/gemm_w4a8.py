"""Products with 4-bit weights that are folded in parts: Triton or PyTorch folds, the compiled kernels multiply."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ..fold_weight import fold_weight
from ..gemm_w4a8 import as_product, parts_of
from ..gemm_w8a8 import format_of
from ..registry import use_backend
from .gemm_w8a8 import gemm_w8a8, gemm_w8a8_file, gemm_w8a8_rejects

# Rows of a 16-bit output begin at a multiple of 16 bytes in each part.
CHANNEL_MULTIPLE = 8


def gemm_w4a8_rejects(
    qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, bias, fold_channels, out_dtype
) -> str | None:
    if fold_channels < qweight.shape[0] and fold_channels % CHANNEL_MULTIPLE:
        return f"parts of a multiple of {CHANNEL_MULTIPLE} output channels needed, got {fold_channels}"
    return gemm_w8a8_rejects(*as_product(qx, ascales, qweight, product_scales, low_rank_act, proj_up, bias, out_dtype))


def gemm_w4a8_file(
    qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, bias, fold_channels, out_dtype
) -> str:
    return gemm_w8a8_file(*as_product(qx, ascales, qweight, product_scales, low_rank_act, proj_up, bias, out_dtype))


def fold(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> Tensor:
    """By a backend that folds, whichever the product was asked for by name."""
    with use_backend("triton" if qweight.is_cuda and fold_weight.missing("triton") is None else "reference"):
        return fold_weight(qweight, wscales, channel_scales, format)


def gemm_w4a8(
    kernels: ModuleType,
    qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, bias, fold_channels, out_dtype,
) -> Tensor:  # fmt: skip
    n = qweight.shape[0]
    out = torch.empty(qx.shape[0], n, dtype=out_dtype, device=qx.device)
    for part in parts_of(n, fold_channels):
        codes = fold(qweight[part], wscales[:, part], channel_scales[part], format_of(qx))
        rest = low_rank_act, proj_up[part], None if bias is None else bias[part], out_dtype
        gemm_w8a8(kernels, qx, ascales, codes, product_scales[part], *rest, out=out[:, part])
    return out
