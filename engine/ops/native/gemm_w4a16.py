"""gemm_w4a16 on the compiled kernels: up to 512 rows of 16-bit activations and a 4-bit weight."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ..gemm_w4a16 import format_of
from .operands import DTYPE_CODE, HALVES, addresses, dense, floats, stream_of

MAX_ROWS = 512
MAX_K = 2**16
MAX_N = 2**18


def gemm_w4a16_rejects(x, smooth, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype) -> str | None:
    (rows, k), n = x.shape, qweight.shape[0]
    if x.dtype not in HALVES:
        return f"x must be float16 or bfloat16, got {str(x.dtype).removeprefix('torch.')}"
    if wscales.dtype == torch.float32:
        return "wscales must be float16 or bfloat16 for int4, got float32"
    if rows > MAX_ROWS:
        return f"x must have at most {MAX_ROWS} rows, got {rows}"
    if k > MAX_K or n > MAX_N:
        return f"K must be at most {MAX_K} and N at most {MAX_N}, got K {k}, N {n}"
    if not rows * n * k:
        return f"no size may be 0, got M {rows}, N {n}, K {k}"
    return f"N must be a multiple of 8, got {n}" if n % 8 else None


def gemm_w4a16(
    kernels: ModuleType,
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
    (m, k), (n, rank) = x.shape, proj_up.shape
    tensors = dict(
        x=dense(x),
        smooth=dense(smooth),
        # x / smooth as two rows of bfloat16 for each row of x.
        parts=None if smooth is None else torch.empty(2 * m, k, dtype=torch.bfloat16, device=x.device),
        qweight=dense(qweight),
        wscales=dense(wscales),
        wtscale=dense(wtscale),
        low_rank_act=dense(low_rank_act),
        proj_up=dense(proj_up),
        bias=dense(bias),
        out=torch.empty(m, n, dtype=out_dtype, device=x.device),
    )
    at = dict(zip(tensors, addresses(kernels, **tensors), strict=True))
    nvfp4 = format_of(wscales) == "nvfp4"
    scales = kernels.Floats(at["wscales"], 0 if nvfp4 else DTYPE_CODE[wscales.dtype])
    companions = (floats(kernels, tensors[name], at[name]) for name in ("low_rank_act", "proj_up", "bias"))
    arguments = kernels.W4A16Arguments(
        at["qweight"], scales, at["wtscale"], *companions, at["out"], DTYPE_CODE[out_dtype], m, n, k, rank
    )
    x_floats, smooth_floats = (floats(kernels, tensors[name], at[name]) for name in ("x", "smooth"))
    kernels.gemm_w4a16(x_floats, smooth_floats, at["parts"], nvfp4, arguments, stream_of(x))
    return tensors["out"]
