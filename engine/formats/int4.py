"""INT4 in groups along K, one scale per group: signed codes -7..7, or unsigned 0..15 for inputs that are never negative.

The scale is rounded to its stored type first and the codes are computed with that rounded scale, so quantize and dequantize
agree. A NaN makes its group's scale NaN, and so the whole group after dequantize; infinity saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scaling import apply_scale, peak_magnitude, scale_from_peak, split_groups

GROUP_SIZE = 64
HIGHEST, HIGHEST_UNSIGNED = 7, 15


def quantize(
    x: Tensor, unsigned: bool = False, scale_dtype: torch.dtype | None = None, group_size: int = GROUP_SIZE
) -> tuple[Tensor, Tensor]:
    """Round x to INT4 with scale absmax/7 (signed) or max/15 (unsigned, negative inputs become 0).

    x: float [..., K] -> codes int8 [..., K], scales scale_dtype (x.dtype when None) [..., K/group_size].
    Raises ValueError when K is not a multiple of group_size.
    """
    groups = split_groups(x, group_size)
    scales = group_scales(x, unsigned, scale_dtype, group_size)
    lowest, highest = (0, HIGHEST_UNSIGNED) if unsigned else (-HIGHEST, HIGHEST)
    codes = (groups / scales.float().unsqueeze(-1)).round_().clamp_(lowest, highest).nan_to_num_(0)
    return codes.to(torch.int8).flatten(-2), scales


def group_scales(
    x: Tensor, unsigned: bool = False, scale_dtype: torch.dtype | None = None, group_size: int = GROUP_SIZE
) -> Tensor:
    """The scales that `quantize` gives x."""
    groups = split_groups(x, group_size)
    peak = groups.amax(-1).clamp_(min=0) if unsigned else peak_magnitude(groups)
    return scale_from_peak(peak, HIGHEST_UNSIGNED if unsigned else HIGHEST, scale_dtype or x.dtype)


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """codes [..., K], scales [..., G] -> float32 [..., K]."""
    return apply_scale(codes, scales)
