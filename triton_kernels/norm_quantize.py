"""LayerNorm or RMSNorm with adaLN modulation, then `quantize_act`."""

from __future__ import annotations

from torch import Tensor

from .quantize_launch import quantize_rows
from .quantize_rows import Norm


def norm_quantize(
    x: Tensor,
    norm: str,
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    mod_scale: Tensor | None,
    mod_shift: Tensor | None,
    *quantize_args,
) -> tuple[Tensor, Tensor, Tensor]:
    dense = [None if tensor is None else tensor.contiguous() for tensor in (weight, bias, mod_scale, mod_shift)]
    rows_each = [1 if mod is None else x.shape[0] // mod.shape[0] for mod in (mod_scale, mod_shift)]
    return quantize_rows(x, *quantize_args, norm=Norm(*dense, *rows_each, eps), kind=norm)
