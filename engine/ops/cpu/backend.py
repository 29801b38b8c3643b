"""Which calls of the ops the "cpu" backend takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..fold_weight import fold_weight
from ..gemm_w4a8 import as_product, gemm_w4a8
from ..gemm_w4a16 import format_of
from ..gemm_w8a8 import gemm_w8a8
from ..quantize_act import quantize_act

# Above this the INT32 sum of 127 * 127 could overflow.
K_LIMIT = 1 << 17
DTYPES = (torch.float32, torch.bfloat16)


def quantize_act_rejects(
    x: Tensor,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> str | None:
    if format != "int8" or segments != 1:
        return f"int8 with 1 segment needed, got {format} with {segments}"
    return None if x.dtype in DTYPES else f"x must be float32 or bfloat16, got {x.dtype}"


def gemm_w8a8_rejects(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> str | None:
    if qx.dtype != torch.int8 or ascales.shape[0] != 1:
        return f"int8 codes with 1 scale per token needed, got {qx.dtype} with {ascales.shape[0]}"
    if qx.shape[1] > K_LIMIT:
        return f"K of at most {K_LIMIT} needed for an exact sum, got {qx.shape[1]}"
    return None if out_dtype in DTYPES else f"out_dtype must be float32 or bfloat16, got {out_dtype}"


def gemm_w4a8_rejects(
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
) -> str | None:
    return gemm_w8a8_rejects(*as_product(qx, ascales, qweight, product_scales, low_rank_act, proj_up, bias, out_dtype))


def fold_weight_rejects(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> str | None:
    source = format_of(wscales)
    return None if (source, format) == ("int4", "int8") else f"int4 folded to int8 needed, got {source} folded to {format}"


def register() -> None:
    """Add the backend to its ops."""
    quantize_act.add("cpu", "halfbyte.ops.cpu.kernels:quantize_act", quantize_act_rejects)
    gemm_w8a8.add("cpu", "halfbyte.ops.cpu.kernels:gemm_w8a8", gemm_w8a8_rejects)
    gemm_w4a8.add("cpu", "halfbyte.ops.cpu.kernels:gemm_w4a8", gemm_w4a8_rejects)
    fold_weight.add("cpu", "halfbyte.ops.cpu.kernels:fold_weight", fold_weight_rejects)
