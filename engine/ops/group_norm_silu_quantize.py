"""GroupNorm and SiLU over channels-last pixels, then `quantize_act`: what stands before a UNet convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim
from .quantize_act import check_columns, quantize_act
from .registry import Op


def group_norm_silu(x: Tensor, num_groups: int, eps: float, weight: Tensor | None, bias: Tensor | None, silu: bool) -> Tensor:
    """x [B, P, C] -> group norm over P and each group of channels, then SiLU, in float32 and rounded once to x's dtype."""
    groups = x.float().unflatten(-1, (num_groups, -1))
    centred = groups - groups.mean((1, 3), keepdim=True)
    y = (centred * torch.rsqrt(centred.square().mean((1, 3), keepdim=True) + eps)).flatten(-2)
    y = y if weight is None else y * weight.float()
    y = y if bias is None else y + bias.float()
    return (torch.nn.functional.silu(y) if silu else y).to(x.dtype)


@Op
def group_norm_silu_quantize(
    x: Tensor,
    num_groups: int,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    silu: bool,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`quantize_act` of the normalized pixels, which are rounded to x's dtype in between.

    x [B, P, C], P = H*W pixels; weight, bias [C]; the rest and the results as in `quantize_act` with M = B*P and K = C.
    """
    y = group_norm_silu(x, num_groups, eps, weight, bias, silu).flatten(0, 1)
    return quantize_act.reference(y, smooth, proj_down, format, shift, unsigned, segments, four_over_six)


@group_norm_silu_quantize.set_fake
def fake(x, num_groups, eps, weight, bias, silu, *quantize_args):
    return quantize_act.fake(x.flatten(0, 1), *quantize_args)


@group_norm_silu_quantize.set_check
def check(x, num_groups, eps, weight, bias, silu, *quantize_args):
    expect_dim("x", x, 3, *FLOATS)
    if num_groups < 1 or x.shape[2] % num_groups:
        raise ValueError(f"num_groups: a divisor of the {x.shape[2]} channels needed, got {num_groups}")
    expect("weight", weight, (x.shape[2],), *FLOATS)
    expect("bias", bias, (x.shape[2],), *FLOATS)
    check_columns(x.shape[2], *quantize_args)
