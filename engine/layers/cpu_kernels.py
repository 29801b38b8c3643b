"""The C++ kernels on tensors; importing this fails where the extension was not built."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _C
from ..ops import padded_rows

SUFFIX = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def contiguous_float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def expand_int4(qweight: Tensor, wscales: Tensor) -> Tensor:
    """qweight int8 [N, K/2], wscales [K/64, N] -> float32 [N, K]."""
    qweight, scales = qweight.contiguous(), wscales.t().float().contiguous()
    rows, columns = qweight.shape[0], qweight.shape[1] * 2
    out = torch.empty(rows, columns)
    _C.expand_int4(address(qweight), address(scales), address(out), rows, columns, torch.get_num_threads())
    return out


def quantize_act(
    x: Tensor, smooth: Tensor | None, proj_down: Tensor | None, format: str, shift: float = 0.0, *defaults: bool | int
) -> tuple[Tensor, Tensor, Tensor]:
    """The INT8 case of `ops.quantize_act`, bit for bit."""
    x, smooth = x.contiguous(), contiguous_float(smooth)
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    ascales = torch.ones(1, padded_rows(rows))
    function = getattr(_C, f"quantize_int8_{SUFFIX[x.dtype]}")
    function(address(x), address(smooth), shift, address(codes), address(ascales), rows, columns, torch.get_num_threads())
    low_rank_act = x.new_empty(rows, 0) if proj_down is None else (x.float() @ proj_down.float()).to(x.dtype)
    return codes, ascales, low_rank_act


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
    """The INT8 case of `ops.gemm_w8a8` with one scale per token; the product is an exact INT32."""
    accumulator = torch._int_mm(qx, qweight.t())
    rows, columns = accumulator.shape
    ranked = proj_up.shape[1] > 0
    out = torch.empty(rows, columns, dtype=torch.float32 if ranked else out_dtype)
    bias, wscales, ascales = contiguous_float(bias), wscales.contiguous(), ascales.contiguous()
    function = getattr(_C, f"rescale_int32_{SUFFIX[out.dtype]}")
    function(*map(address, (accumulator, ascales, wscales, bias, out)), rows, columns, torch.get_num_threads())
    return out.addmm_(low_rank_act.float(), proj_up.float().t()).to(out_dtype) if ranked else out


def linear_int8(x: Tensor, smooth: Tensor | None, qweight: Tensor, wscales: Tensor, bias: Tensor | None) -> Tensor:
    """`gemm_w8a8` of `quantize_act` of x [M, K] without the dispatcher between: on small layers that is half of the time.

    smooth [K] and wscales [N] float32, contiguous; x float32 or bfloat16. The same bits as through the ops.
    """
    x, bias, suffix, threads = x.contiguous(), contiguous_float(bias), SUFFIX[x.dtype], torch.get_num_threads()
    rows, columns = x.shape
    codes, ascales = torch.empty(rows, columns, dtype=torch.int8), torch.empty(rows)
    quantize, rescale = getattr(_C, f"quantize_int8_{suffix}"), getattr(_C, f"rescale_int32_{suffix}")
    quantize(x.data_ptr(), address(smooth), 0.0, codes.data_ptr(), ascales.data_ptr(), rows, columns, threads)
    accumulator = torch._int_mm(codes, qweight.t())
    out = torch.empty(accumulator.shape, dtype=x.dtype)
    rescale(*map(address, (accumulator, ascales, wscales, bias, out)), rows, out.shape[1], threads)
    return out
