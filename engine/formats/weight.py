"""A weight matrix to and from the tensors a layer stores for it."""

from __future__ import annotations

import torch
from torch import Tensor

from . import fp8, int4, int8, nvfp4
from .layer_format import companion_dtype
from .packing import pack_nibbles, unpack_nibbles


def quantize_weight(
    weight: Tensor, format: str, dtype: torch.dtype = torch.bfloat16, four_over_six: bool = False
) -> dict[str, Tensor]:
    """Round a weight to nearest.

    weight: float [N, K], already smoothed and without its low-rank part; format: "int4", "nvfp4", "int8" or "fp8"; dtype: the layer
    computes in, int4 scales are 16-bit. Returns qweight, wscales (and wtscale for nvfp4) with the shapes of `LayerFormat.tensors`.
    """
    if format == "int4":
        codes, scales = int4.quantize(weight, scale_dtype=companion_dtype(dtype))
        return {"qweight": pack_nibbles(codes), "wscales": scales.t().contiguous()}
    if format == "nvfp4":
        codes, scales, outer_scale = nvfp4.quantize(weight, four_over_six=four_over_six)
        return {"qweight": pack_nibbles(codes), "wscales": scales.t().contiguous(), "wtscale": outer_scale.reshape(1)}
    codes, scales = {"int8": int8, "fp8": fp8}[format].quantize(weight)
    return {"qweight": codes, "wscales": scales.squeeze(-1)}


def dequantize_weight(qweight: Tensor, wscales: Tensor, wtscale: Tensor | None, format: str) -> Tensor:
    """The float32 [N, K] weight that the stored tensors stand for, still smoothed and without its low-rank part."""
    if format == "int4":
        return int4.dequantize(unpack_nibbles(qweight, signed=True), wscales.t())
    if format == "nvfp4":
        return nvfp4.dequantize(unpack_nibbles(qweight, signed=False), wscales.t(), wtscale)
    return {"int8": int8, "fp8": fp8}[format].dequantize(qweight, wscales.unsqueeze(-1))
