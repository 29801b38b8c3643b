"""FP8 E4M3 (finite, no infinity) with one float32 scale per row and K-segment.

A NaN makes its segment's scale NaN; infinity saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scaling import FLOAT32_MAX, apply_scale, scale_from_peak, split_groups

E4M3_MAX = 448.0


def to_e4m3(x: Tensor) -> Tensor:
    """x clamped to +-448 and rounded to nearest even; unclamped, PyTorch versions differ on what a larger value becomes."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def power_of_two_scale(peak: Tensor) -> Tensor:
    """The smallest normal power of two that maps `peak` (float32, >= 0) into +-448, 1 for a peak of 0; NaN stays NaN.

    Multiples of a power of two lose no bits to it: codes whose values E4M3 holds stay exact.
    """
    mantissa, exponent = torch.frexp((peak / E4M3_MAX).clamp(max=FLOAT32_MAX / (E4M3_MAX + 1)))
    # frexp gives a mantissa in [0.5, 1): a peak that a power of two maps to just 448 needs no larger one.
    exponent = (exponent.int() - (mantissa == 0.5).int()).clamp(-126, 127)
    scale = ((exponent + 127) << 23).view(torch.float32)
    return torch.where(peak == 0, torch.ones_like(scale), torch.where(peak.isnan(), peak, scale))


def quantize(x: Tensor, segments: int = 1) -> tuple[Tensor, Tensor]:
    """Round x to E4M3 with scale absmax/448.

    x: float [..., K] -> codes float8_e4m3fn [..., K], scales float32 [..., segments].
    Raises ValueError when segments does not divide K.
    """
    if x.shape[-1] % segments:
        raise ValueError(f"x: {segments} segments do not divide the last dimension, {x.shape[-1]}")
    groups = split_groups(x, x.shape[-1] // segments)
    scales = scale_from_peak(groups.abs().amax(-1), E4M3_MAX, torch.float32)
    return to_e4m3((groups / scales.unsqueeze(-1)).flatten(-2)), scales


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """codes [..., K], scales [..., S] -> float32 [..., K]."""
    return apply_scale(codes, scales)
