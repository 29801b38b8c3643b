"""Matrix product of INT4 activations and INT4 weights in groups of 64, plus the low-rank branch and the bias."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight
from .operands import add_low_rank_and_bias, check_act, check_companions, check_weight, dequantize_act
from .registry import Op


@Op
def gemm_w4a4(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    act_unsigned: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """y [M, N] = x @ weight^T + low_rank_act @ proj_up^T + bias, accumulated in float32 over all groups and rounded once.

    qx int8 [M, K/2] packed, unsigned codes when act_unsigned; ascales 16-bit or float32 [K/64, Mp]; qweight int8 [N, K/2] packed;
    wscales [K/64, N]; low_rank_act [M, R]; proj_up [N, R]; bias [N]. Source: arXiv 2411.05007 (SVDQuant).
    """
    x = dequantize_act(qx, ascales, "int4", act_unsigned)
    y = x @ dequantize_weight(qweight, wscales, None, "int4").t()
    return add_low_rank_and_bias(y, low_rank_act, proj_up, bias).to(out_dtype)


@gemm_w4a4.set_fake
def fake(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, act_unsigned, out_dtype):
    return qx.new_empty((qx.shape[0], qweight.shape[0]), dtype=out_dtype)


@gemm_w4a4.set_check
def check(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, act_unsigned, out_dtype):
    n = check_weight(qweight, wscales, None, check_act(qx, ascales, "int4"), "int4")
    check_companions(qx.shape[0], n, low_rank_act, proj_up, bias, out_dtype)
    return qx.shape[0], n
