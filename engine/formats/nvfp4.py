"""NVFP4: E2M1 codes in blocks of 16, one E4M3 scale per block and one float32 outer scale per tensor.

A NaN makes its block's scale NaN (and the outer scale too, when that is taken from the tensor); infinity saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fp8 import E4M3_MAX, to_e4m3
from .scaling import FLOAT32_MAX, apply_scale, peak_magnitude, split_groups

BLOCK_SIZE = 16
E2M1_MAX = 6.0
E4M3_TINY = 2.0**-9
EXPONENT_BITS = 0x7F800000
# With the smallest block scale the product is still a normal float32, so no division by zero or by a subnormal.
OUTER_SCALE_MIN = 2.0**-117


def e2m1_encode(x: Tensor) -> Tensor:
    """Round x to the nearest of +-{0, 0.5, 1, 1.5, 2, 3, 4, 6}, ties to the even code; larger values saturate, NaN becomes 0.

    x: float [...] -> int8 codes 0..15 [...], bit 3 the sign.
    """
    magnitude = x.float().abs().nan_to_num(0, posinf=E2M1_MAX)
    # Codes count the points of the grid: four steps of 0.5 up to 2, two of 1 up to 4, one of 2 up to 6. A tie between two points
    # lies halfway in its own stretch, and each stretch starts at an even code, so rounding half to even is right for all.
    code = (2 * magnitude).round_().clamp_(max=4)
    code += (magnitude - 2).clamp_(0, 2).round_()
    code += ((magnitude - 4) / 2).clamp_(0, 1).round_()
    return code.to(torch.int8) + 8 * torch.signbit(x).to(torch.int8)


def e2m1_round(x: Tensor) -> Tensor:
    """What decoding the codes of x gives, in fewer passes; NaN stays NaN. x: float [...] -> float32 [...]."""
    return _unsigned_zero_round(x).copysign_(x)


def _unsigned_zero_round(x: Tensor) -> Tensor:
    """e2m1_round, but that every zero is positive."""
    y = x.float().clamp(-E2M1_MAX, E2M1_MAX)
    # The grid's step is half the power of two at or below the magnitude, half of 1 below 1. A sum with 1.5 * 2^22 times that
    # power has this step as its last bit, so the addition itself rounds to nearest even; taking the number off again is exact.
    anchor = y.view(torch.int32).bitwise_and(EXPONENT_BITS).view(torch.float32).clamp_(min=1.0).mul_(1.5 * 2.0**22)
    return y.add_(anchor).sub_(anchor)


def e2m1_decode(codes: Tensor) -> Tensor:
    """codes 0..15 [...] -> float32 [...]."""
    # The exponent and mantissa bits of E2M1, moved to those of float16, give the value times 2^-14, zero and subnormals included.
    wide = codes.to(torch.int16)
    return (((wide & 7) << 9) | ((wide & 8) << 12)).view(torch.float16).float() * 2.0**14


def outer_scale_of(x: Tensor, four_over_six: bool = False) -> Tensor:
    """The outer scale that uses the whole E4M3 range: absmax/(6*448), or absmax/(6*256) for four over six.

    The latter leaves room for block scales 1.5 times larger. x: [...] -> float32 scalar.
    """
    largest = E2M1_MAX * (256.0 if four_over_six else E4M3_MAX)
    return (peak_magnitude(x.float().flatten()) / largest).clamp(OUTER_SCALE_MIN, FLOAT32_MAX / (E2M1_MAX * E4M3_MAX + 1))


def block_scales(x: Tensor, outer_scale: Tensor, four_over_six: bool = False) -> Tensor:
    """The block scales that `quantize` gives x [..., K]: float8_e4m3fn [..., K/16]."""
    blocks = split_groups(x, BLOCK_SIZE)
    peak = peak_magnitude(blocks)
    six = _scales_to(E2M1_MAX, peak, outer_scale)
    if not four_over_six:
        return six
    four = _scales_to(4.0, peak, outer_scale)
    better = _block_errors(blocks, four, outer_scale) < _block_errors(blocks, six, outer_scale)
    return torch.where(better, four.float(), six.float()).to(torch.float8_e4m3fn)


def _scales_to(target: float, peak: Tensor, outer_scale: Tensor) -> Tensor:
    """Block scales that map each block's absmax to `target`."""
    return to_e4m3((peak / (target * outer_scale)).clamp(min=E4M3_TINY))


def _block_errors(blocks: Tensor, scales: Tensor, outer_scale: Tensor) -> Tensor:
    step = (scales.float() * outer_scale).unsqueeze(-1)
    return _unsigned_zero_round(blocks / step).mul_(step).sub_(blocks).square_().sum(-1)


def quantize(x: Tensor, outer_scale: Tensor | None = None, four_over_six: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Round x to NVFP4; with four_over_six each block maps its absmax to 6 or to 4, whichever has less squared error.

    x: float [..., K] -> codes int8 0..15 [..., K], scales float8_e4m3fn [..., K/16], outer_scale float32 scalar
    (`outer_scale_of(x)` when None). Raises ValueError when K is not a multiple of 16. Source: arXiv 2512.02010 (four over six).
    """
    blocks = split_groups(x, BLOCK_SIZE)
    if outer_scale is None:
        outer_scale = outer_scale_of(x, four_over_six)
    outer_scale = outer_scale.float().reshape(())
    scales = block_scales(x, outer_scale, four_over_six)
    codes = e2m1_encode(blocks / (scales.float() * outer_scale).unsqueeze(-1))
    return codes.flatten(-2), scales, outer_scale


def dequantize(codes: Tensor, scales: Tensor, outer_scale: Tensor) -> Tensor:
    """codes [..., K], scales [..., K/16], outer_scale [] or [1] -> float32 [..., K]."""
    return apply_scale(e2m1_decode(codes), scales.float() * outer_scale.float().reshape(()))
