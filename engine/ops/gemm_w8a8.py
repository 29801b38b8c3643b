"""Matrix product of 8-bit activations and 8-bit weights, INT8 or E4M3, plus the low-rank branch and the bias."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight
from .operands import add_low_rank_and_bias, check_act, check_companions, check_weight, dequantize_act
from .registry import Op


def format_of(qx: Tensor) -> str:
    return "fp8" if qx.dtype == torch.float8_e4m3fn else "int8"


@Op
def gemm_w8a8(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """y [M, N] = x @ weight^T + low_rank_act @ proj_up^T + bias, accumulated in float32 over all segments and rounded once.

    qx int8 or e4m3 [M, K]; ascales float32 [S, Mp], each holding for K/S columns (S = 1: per token); qweight [N, K] of qx's
    dtype; wscales float32 [N]; low_rank_act [M, R]; proj_up [N, R]; bias [N].
    """
    y = dequantize_act(qx, ascales, format_of(qx)) @ dequantize_weight(qweight, wscales, None, format_of(qx)).t()
    return add_low_rank_and_bias(y, low_rank_act, proj_up, bias).to(out_dtype)


@gemm_w8a8.set_fake
def fake(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype):
    return qx.new_empty((qx.shape[0], qweight.shape[0]), dtype=out_dtype)


@gemm_w8a8.set_check
def check(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype):
    n = check_weight(qweight, wscales, None, check_act(qx, ascales, format_of(qx)), format_of(qx))
    check_companions(qx.shape[0], n, low_rank_act, proj_up, bias, out_dtype)
    return qx.shape[0], n
