"""The C++ kernels behind the signatures of the ops; they need the extension."""

from __future__ import annotations

import torch
from torch import Tensor

from ...env import extension
from ...formats import int8
from ..gemm_w4a8 import parts_of
from ..operands import padded_rows
from ..registry import OPS
from .packed_weight import BF16_BRANCH, address, as_float, best_isa, pack

if extension() is None:
    raise ImportError("the C++ extension was not built")


def expand_int4(qweight: Tensor, wscales: Tensor) -> Tensor:
    """qweight int8 [N, K/2], wscales [K/64, N] -> float32 [N, K]."""
    qweight, scales = qweight.contiguous(), wscales.t().float().contiguous()
    rows, columns = qweight.shape[0], qweight.shape[1] * 2
    out = torch.empty(rows, columns)
    extension().expand_int4(address(qweight), address(scales), address(out), rows, columns, torch.get_num_threads())
    return out


def fold_weight(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> Tensor:
    """The INT4 to INT8 case of `ops.fold_weight`."""
    return int8.to_int8(expand_int4(qweight, wscales.float() / channel_scales))


def quantize_act(
    x: Tensor, smooth: Tensor | None, proj_down: Tensor | None, format: str, shift: float = 0.0, *defaults: bool | int
) -> tuple[Tensor, Tensor, Tensor]:
    """The INT8 case of `ops.quantize_act`."""
    x = x.contiguous()
    smooth = None if smooth is None else smooth.float().contiguous()
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    ascales = torch.ones(1, padded_rows(rows))
    operands = (address(x), BF16_BRANCH[x.dtype], address(smooth), shift, address(codes), address(ascales))
    extension().quantize(best_isa(), *operands, rows, columns, torch.get_num_threads())
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
    """The INT8 case of `ops.gemm_w8a8` with one scale per token; the product is an exact INT32. Packs the weight in every call."""
    both_bf16 = low_rank_act.dtype == proj_up.dtype == torch.bfloat16
    packed = pack(qweight, wscales, None, proj_up, torch.bfloat16 if both_bf16 else torch.float32)
    low_rank_act, bias = low_rank_act.to(packed.dtype).contiguous(), as_float(bias)
    qx, ascales = qx.contiguous(), ascales.contiguous()
    (rows, k), n = qx.shape, packed.n
    out = torch.empty(rows, n, dtype=out_dtype)
    module = extension()
    shape = module.WeightShape(n, k, packed.rank, both_bf16)
    operands = (address(packed.data), rows, *map(address, (qx, ascales, low_rank_act, bias)))
    bias_bf16 = bias is not None and bias.dtype == torch.bfloat16
    module.gemm(packed.isa, shape, *operands, bias_bf16, address(out), out_dtype == torch.bfloat16, torch.get_num_threads())
    return out


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
    """The INT8 case of `ops.gemm_w4a8`; what the kernels do not fold, PyTorch does."""
    out = torch.empty(qx.shape[0], qweight.shape[0], dtype=out_dtype)
    fold = OPS["fold_weight"].reference if wscales.dtype == torch.float8_e4m3fn else fold_weight
    for part in parts_of(qweight.shape[0], fold_channels):
        codes = fold(qweight[part], wscales[:, part], channel_scales[part], "int8")
        rest = low_rank_act, proj_up[part], None if bias is None else bias[part], out_dtype
        out[:, part] = gemm_w8a8(qx, ascales, codes, product_scales[part], *rest)
    return out
