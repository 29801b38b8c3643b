"""INT8 with one float32 scale per row and K-segment: per token for activations, per output channel for weights.

A NaN makes its segment's scale NaN; infinity saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scaling import apply_scale, scale_from_peak, split_groups


def to_int8(x: Tensor) -> Tensor:
    """x rounded to nearest even and clamped to +-127; NaN becomes 0."""
    return x.round().clamp_(-127, 127).nan_to_num_(0).to(torch.int8)


def quantize(x: Tensor, segments: int = 1) -> tuple[Tensor, Tensor]:
    """Round x to INT8 codes -127..127 with scale absmax/127.

    x: float [..., K] -> codes int8 [..., K], scales float32 [..., segments]. Raises ValueError when segments does not divide K.
    """
    if x.shape[-1] % segments:
        raise ValueError(f"x: {segments} segments do not divide the last dimension, {x.shape[-1]}")
    groups = split_groups(x, x.shape[-1] // segments)
    scales = scale_from_peak(groups.abs().amax(-1), 127, torch.float32)
    return to_int8(groups / scales.unsqueeze(-1)).flatten(-2), scales


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """codes [..., K], scales [..., S] -> float32 [..., K]."""
    return apply_scale(codes, scales)
