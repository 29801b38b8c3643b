"""LayerNorm or RMSNorm with adaLN modulation, then `quantize_act`, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim, expect_one_of
from .quantize_act import check_columns, quantize_act
from .registry import Op


def modulated_norm(
    x: Tensor,
    norm: str,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    mod_scale: Tensor | None,
    mod_shift: Tensor | None,
) -> Tensor:
    """norm(x) * weight + bias, then * (1 + mod_scale) + mod_shift, in float32 and rounded once to x's dtype; shapes as below."""
    y = x.float()
    if norm == "layer":
        y = y - y.mean(-1, keepdim=True)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    y = y if weight is None else y * weight.float()
    y = y if bias is None else y + bias.float()
    if mod_scale is not None:
        y = (y.unflatten(0, (mod_scale.shape[0], -1)) * (1 + mod_scale.float()).unsqueeze(1)).flatten(0, 1)
    if mod_shift is not None:
        y = (y.unflatten(0, (mod_shift.shape[0], -1)) + mod_shift.float().unsqueeze(1)).flatten(0, 1)
    return y.to(x.dtype)


@Op
def norm_quantize(
    x: Tensor,
    norm: str,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    mod_scale: Tensor | None,
    mod_shift: Tensor | None,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`quantize_act` of the modulated norm of x, which is rounded to x's dtype in between.

    x [M, K]; norm "layer" or "rms" over K; weight, bias [K]; mod_scale, mod_shift [B, K], each row holding for M/B rows of x;
    the rest and the results as in `quantize_act`.
    """
    y = modulated_norm(x, norm, eps, weight, bias, mod_scale, mod_shift)
    return quantize_act.reference(y, smooth, proj_down, format, shift, unsigned, segments, four_over_six)


@norm_quantize.set_fake
def fake(x, norm, eps, weight, bias, mod_scale, mod_shift, *quantize_args):
    return quantize_act.fake(x, *quantize_args)


@norm_quantize.set_check
def check(x, norm, eps, weight, bias, mod_scale, mod_shift, *quantize_args):
    expect_dim("x", x, 2, *FLOATS)
    expect_one_of("norm", norm, ("layer", "rms"))
    expect("weight", weight, (x.shape[1],), *FLOATS)
    expect("bias", bias, (x.shape[1],), *FLOATS)
    for name, tensor in (("mod_scale", mod_scale), ("mod_shift", mod_shift)):
        if tensor is None:
            continue
        expect(name, tensor, (tensor.shape[0], x.shape[1]), *FLOATS)
        if x.shape[0] % tensor.shape[0]:
            raise ValueError(f"{name}: its {tensor.shape[0]} rows must divide the {x.shape[0]} rows of x")
    check_columns(x.shape[1], *quantize_args)
