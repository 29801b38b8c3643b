"""Activations rounded to a number format and back, in float32: what a low-bit kernel sees of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import fp8, int8, nvfp4
from ..formats.int4 import GROUP_SIZE
from ..formats.scaling import scale_from_peak, split_groups


def fake_quantize(x: Tensor, format: str, unsigned: bool, scale_dtype: torch.dtype, four_over_six: bool = False) -> Tensor:
    """Round the last dimension as `ops.quantize_act` does, in the format's groups or per row.

    x: float32 [..., K] -> float32 [..., K]; scale_dtype: of the int4 scales.
    """
    if format == "nvfp4":
        return nvfp4.dequantize(*nvfp4.quantize(x, torch.ones((), device=x.device), four_over_six))
    if format == "fp8":
        return fp8.dequantize(*fp8.quantize(x))
    if format == "int8":
        return int8.dequantize(*int8.quantize(x))
    # The same arithmetic as formats.int4, without the detour over packed codes: this runs once per layer and step.
    groups = split_groups(x, GROUP_SIZE)
    lowest, highest = (0, 15) if unsigned else (-7, 7)
    peak = groups.amax(-1).clamp(min=0) if unsigned else torch.linalg.vector_norm(groups, float("inf"), dim=-1)
    scales = scale_from_peak(peak, highest, scale_dtype).float().unsqueeze(-1)
    return (groups / scales).round_().clamp_(lowest, highest).mul_(scales).flatten(-2)
