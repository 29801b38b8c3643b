"""Rows of a stored weight rounded to 8 bits under one scale per output channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .. import ops
from ..formats import LayerFormat, fp8, int8
from ..formats.scaling import scale_from_peak
from .matrix import smooth_columns
from .stored_rows import FOUR_BITS, outer_scale, residual_in_units


def fold_rows(
    storage: Mapping[str, Tensor], layer_format: LayerFormat, down: Tensor | None, format: str
) -> tuple[Tensor, Tensor]:
    """Codes [N, K] and channel scales float32 [N] in units of the outer scale, the branch merged where `down` is given."""
    matrix = residual_in_units(storage, layer_format)
    if down is not None:
        matrix = matrix.addmm_(storage["proj_up"].float(), down)
    scales = scale_of(matrix, format)
    if down is None and layer_format.weight in FOUR_BITS:
        del matrix
        return ops.fold_weight(storage["qweight"], storage["wscales"], scales, format), scales
    encode = {"int8": int8.to_int8, "fp8": fp8.to_e4m3}[format]
    return encode(matrix.div_(scales.unsqueeze(-1))), scales


def scale_of(matrix: Tensor, format: str) -> Tensor:
    """The scale of every row [N, K]: absmax / 127, or for E4M3 a power of two, under which most NVFP4 values stay exact."""
    peak = torch.linalg.vector_norm(matrix, torch.inf, dim=1)
    return fp8.power_of_two_scale(peak) if format == "fp8" else scale_from_peak(peak, 127, torch.float32)


def smoothed_down(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...]) -> Tensor:
    """What the rows of proj_up multiply in a weight that is smoothed and in units of the outer scale: float32 [R, K]."""
    down = storage["proj_down"].float().t()
    if layer_format.smooth:
        down = down * smooth_columns(storage["smooth_factor"], shape)
    outer = outer_scale(storage)
    return down if outer is None else down / outer
