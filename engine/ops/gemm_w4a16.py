"""Matrix product of 16-bit activations and 4-bit weights (INT4 or NVFP4), a matrix-vector product included."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight
from .checks import FLOATS, expect, expect_dim
from .operands import add_low_rank_and_bias, check_companions, check_weight
from .registry import Op


def format_of(wscales: Tensor) -> str:
    return "nvfp4" if wscales.dtype == torch.float8_e4m3fn else "int4"


@Op
def gemm_w4a16(
    x: Tensor,
    smooth: Tensor | None,
    qweight: Tensor,
    wscales: Tensor,
    wtscale: Tensor | None,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """y [M, N] = (x / smooth) @ weight^T + low_rank_act @ proj_up^T + bias, accumulated in float32 and rounded once.

    x [M, K]; smooth [K]; qweight int8 [N, K/2] packed; wscales [K/64, N] for int4, e4m3 [K/16, N] for nvfp4, which also has
    wtscale float32 [1]; low_rank_act [M, R]; proj_up [N, R]; bias [N].
    """
    smoothed = x.float() if smooth is None else x.float() / smooth.float()
    y = smoothed @ dequantize_weight(qweight, wscales, wtscale, format_of(wscales)).t()
    return add_low_rank_and_bias(y, low_rank_act, proj_up, bias).to(out_dtype)


@gemm_w4a16.set_fake
def fake(x, smooth, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype):
    return x.new_empty((x.shape[0], qweight.shape[0]), dtype=out_dtype)


@gemm_w4a16.set_check
def check(x, smooth, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype):
    expect_dim("x", x, 2, *FLOATS)
    expect("smooth", smooth, (x.shape[1],), *FLOATS)
    n = check_weight(qweight, wscales, wtscale, x.shape[1], format_of(wscales))
    check_companions(x.shape[0], n, low_rank_act, proj_up, bias, out_dtype)
    return x.shape[0], n
