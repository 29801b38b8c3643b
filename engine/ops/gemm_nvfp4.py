"""Matrix product of NVFP4 activations and NVFP4 weights in blocks of 16, plus the low-rank branch and the bias."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight
from .operands import add_low_rank_and_bias, check_act, check_companions, check_weight, dequantize_act
from .registry import Op


@Op
def gemm_nvfp4(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    wtscale: Tensor,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """y [M, N] = x @ weight^T + low_rank_act @ proj_up^T + bias, accumulated in float32 over all blocks and rounded once.

    qx int8 [M, K/2] packed E2M1; ascales e4m3 [K/16, Mp], outer scale 1; qweight int8 [N, K/2]; wscales e4m3 [K/16, N];
    wtscale float32 [1]; low_rank_act [M, R]; proj_up [N, R]; bias [N].
    """
    y = dequantize_act(qx, ascales, "nvfp4") @ dequantize_weight(qweight, wscales, wtscale, "nvfp4").t()
    return add_low_rank_and_bias(y, low_rank_act, proj_up, bias).to(out_dtype)


@gemm_nvfp4.set_fake
def fake(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype):
    return qx.new_empty((qx.shape[0], qweight.shape[0]), dtype=out_dtype)


@gemm_nvfp4.set_check
def check(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype):
    n = check_weight(qweight, wscales, wtscale, check_act(qx, ascales, "nvfp4"), "nvfp4")
    check_companions(qx.shape[0], n, low_rank_act, proj_up, bias, out_dtype)
    return qx.shape[0], n
