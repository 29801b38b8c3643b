"""What the references of all matrix ops share: decoded activations, the low-rank branch and bias, checks of the operands."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import int4, int8, nvfp4, unpack_nibbles
from .checks import FLOATS, expect, expect_float

CODE_DTYPE = {"int4": torch.int8, "nvfp4": torch.int8, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
CODES_PER_ELEMENT = {"int4": 2, "nvfp4": 2, "int8": 1, "fp8": 1}
GROUP_SIZE = {"int4": 64, "nvfp4": 16}
SCALE_DTYPES = {"int4": FLOATS, "nvfp4": (torch.float8_e4m3fn,), "int8": (torch.float32,), "fp8": (torch.float32,)}


def padded_rows(rows: int) -> int:
    """Mp: rows rounded up to 8, so that a kernel reads activation scales in whole vectors. Padding scales are 1."""
    return (rows + 7) // 8 * 8


def dequantize_act(qx: Tensor, ascales: Tensor, format: str, unsigned: bool = False) -> Tensor:
    """qx [M, K or K/2], ascales [G or S, Mp] -> float32 [M, K]."""
    scales = ascales[:, : qx.shape[0]].t()
    if format == "int4":
        return int4.dequantize(unpack_nibbles(qx, signed=not unsigned), scales)
    if format == "nvfp4":
        return nvfp4.dequantize(unpack_nibbles(qx, signed=False), scales, torch.ones((), device=qx.device))
    return int8.dequantize(qx, scales)


def add_low_rank_and_bias(y: Tensor, low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None) -> Tensor:
    """y [M, N] + low_rank_act [M, R] @ proj_up[N, R]^T + bias [N], all in float32."""
    if proj_up.shape[1]:
        y = y + low_rank_act.float() @ proj_up.float().t()
    return y if bias is None else y + bias.float()


def check_act(qx: Tensor, ascales: Tensor, format: str) -> int:
    """Check quantized activations and return K."""
    rows, k = qx.shape[0], qx.shape[1] * CODES_PER_ELEMENT[format]
    groups = k // GROUP_SIZE[format] if format in GROUP_SIZE else ascales.shape[0]
    expect("qx", qx, (rows, qx.shape[1]), CODE_DTYPE[format])
    expect("ascales", ascales, (groups, padded_rows(rows)), *SCALE_DTYPES[format])
    if k % max(groups, 1):
        raise ValueError(f"ascales: {groups} segments do not divide K {k}")
    return k


def check_weight(qweight: Tensor, wscales: Tensor, wtscale: Tensor | None, k: int, format: str) -> int:
    """Check a stored weight against K and return N."""
    n = qweight.shape[0]
    expect("qweight", qweight, (n, k // CODES_PER_ELEMENT[format]), CODE_DTYPE[format])
    expect("wscales", wscales, (k // GROUP_SIZE[format], n) if format in GROUP_SIZE else (n,), *SCALE_DTYPES[format])
    if format == "nvfp4" and wtscale is None:
        raise ValueError("wtscale: nvfp4 weights need their outer scale, got None")
    expect("wtscale", wtscale, (1,), torch.float32)
    return n


def check_companions(
    rows: int, n: int, low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> None:
    """Check what is added to a product of shape [rows, n]."""
    expect("low_rank_act", low_rank_act, (rows, proj_up.shape[1]), *FLOATS)
    expect("proj_up", proj_up, (n, proj_up.shape[1]), *FLOATS)
    expect("bias", bias, (n,), *FLOATS)
    expect_float("out_dtype", out_dtype)
