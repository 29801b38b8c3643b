"""What every scale rule shares: absmax in float32, and scales that never make a zero or huge group infinite."""

from __future__ import annotations

import torch
from torch import Tensor

FLOAT32_MAX = torch.finfo(torch.float32).max


def split_groups(x: Tensor, group_size: int) -> Tensor:
    """x [..., K] -> float32 [..., K/group_size, group_size]. Raises ValueError when K does not divide."""
    if x.shape[-1] % group_size:
        raise ValueError(f"x: the last dimension must be a multiple of group_size {group_size}, got {x.shape[-1]}")
    return x.unflatten(-1, (x.shape[-1] // group_size, group_size)).float()


def peak_magnitude(x: Tensor) -> Tensor:
    """The largest magnitude along the last dimension: [..., K] -> [...]; NaN where there is one."""
    # Two reductions read x twice; x.abs() would write it besides.
    return torch.maximum(x.amax(-1), x.amin(-1).neg_()).abs_()


def scale_from_peak(peak: Tensor, largest_code: float, scale_dtype: torch.dtype) -> Tensor:
    """The scale, already rounded to scale_dtype, that maps `peak` (float32, >= 0) to the largest code.

    A scale that rounds to zero becomes 1, so that its group gets zero codes. A peak too large for scale_dtype, infinity included,
    saturates. NaN stays NaN.
    """
    # One code of headroom keeps largest_code * scale finite after scale is rounded up.
    limit = min(torch.finfo(scale_dtype).max, FLOAT32_MAX / (largest_code + 1))
    scale = (peak / largest_code).clamp(max=limit).to(scale_dtype)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def apply_scale(codes: Tensor, scales: Tensor) -> Tensor:
    """codes [..., K] * scales [..., S], each scale holding for K/S columns -> float32 [..., K]."""
    if codes.shape[-1] % scales.shape[-1]:
        raise ValueError(f"scales: {scales.shape[-1]} groups do not divide the {codes.shape[-1]} columns of codes")
    groups = codes.unflatten(-1, (scales.shape[-1], codes.shape[-1] // scales.shape[-1])).float()
    return (groups * scales.float().unsqueeze(-1)).flatten(-2)
