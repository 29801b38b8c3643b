"""What a quantized layer makes of its input, in float32, so that a recipe can be scored without packing anything."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import LayerFormat, fp8, int4, int8, nvfp4


def fake_quantize_input(x: Tensor, smooth_factor: Tensor, layer_format: LayerFormat, dtype: torch.dtype, taps: int = 1) -> Tensor:
    """The smoothed input after quantization, its shift taken out again: Qa((x + act_shift)/smooth) - act_shift/smooth.

    x: float [..., K]; smooth_factor: float32 [K]; dtype: of the layer's input, which int4 scales are rounded to; taps: K-segments
    of a convolution, each with its own 8-bit scale. Returns float32 [..., K].
    """
    smoothed = (x.float() + layer_format.act_shift) / smooth_factor
    if layer_format.activation == "int4":
        quantized = int4.dequantize(*int4.quantize(smoothed, layer_format.act_unsigned, dtype))
    elif layer_format.activation == "nvfp4":
        one = torch.ones((), device=x.device)
        quantized = nvfp4.dequantize(*nvfp4.quantize(smoothed, one, layer_format.four_over_six))
    elif layer_format.activation is None:
        quantized = smoothed
    else:
        eight_bit = {"int8": int8, "fp8": fp8}[layer_format.activation]
        quantized = eight_bit.dequantize(*eight_bit.quantize(smoothed, taps))
    return quantized - layer_format.act_shift / smooth_factor if layer_format.act_shift else quantized
