"""FP8 E4M3 (finite, no infinity) with one float32 scale per row and K-segment.

A NaN makes its segment's scale NaN; infinity saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scaling import apply_scale, scale_from_peak, split_groups

E4M3_MAX = 448.0


def to_e4m3(x: Tensor) -> Tensor:
    """x clamped to +-448 and rounded to nearest even; unclamped, PyTorch versions differ on what a larger value becomes."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


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
