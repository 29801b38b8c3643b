"""4-bit storage as INT8 codes with one scale per output channel, and whether its low-rank branch is merged into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import LayerFormat, int8
from .matrix import random_matrix, smooth_columns
from .storage import dequantize_residual

# A branch is merged where that makes the output's error grow by no more than this.
MERGED_GROWTH = 0.05
SAMPLED_ROWS = 64
# Relative RMS error that rounding to each format leaves in normally distributed weights, and so in their product.
ROUNDING_ERROR = {"int4": 0.1, "nvfp4": 0.09, "int8": 0.008, "fp8": 0.026}


@dataclass(frozen=True)
class Int8Weight:
    """qweight int8 [N, K] of the weight times smooth [K] float32; wscales float32 [N]; proj_down [K, R], proj_up [N, R] or None."""

    qweight: Tensor
    wscales: Tensor
    smooth: Tensor | None
    proj_down: Tensor | None = None
    proj_up: Tensor | None = None

    @property
    def rank(self) -> int:
        return 0 if self.proj_up is None else self.proj_up.shape[1]


def fold_to_int8(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...]) -> Int8Weight:
    """The stored weight for INT8 activations with one scale per token; the same on every device, up to the order of sums.

    The branch reads x itself. Merged, it reads the codes of x and costs nothing; it is merged unless that makes the error of the
    output, with the error that the storage has already, grow by more than MERGED_GROWTH on activations that smoothing left normal.
    """
    residual = dequantize_residual(storage, layer_format)
    smooth = smooth_columns(storage["smooth_factor"], shape) if layer_format.smooth else None
    if not layer_format.rank:
        return rounded(residual, smooth)
    down, up = storage["proj_down"], storage["proj_up"]
    branch = up.float() @ down.float().t()
    branch = branch if smooth is None else branch * smooth
    beside, merged = rounded(residual, smooth, down, up), rounded(residual + branch, smooth)
    return merged if error_growth(residual, branch, beside, merged, layer_format.weight) <= MERGED_GROWTH else beside


def rounded(matrix: Tensor, smooth: Tensor | None, proj_down: Tensor | None = None, proj_up: Tensor | None = None) -> Int8Weight:
    """matrix: float32 [N, K], already smoothed."""
    codes, scales = int8.quantize(matrix)
    return Int8Weight(codes, scales.squeeze(-1), smooth, proj_down, proj_up)


def error_growth(residual: Tensor, branch: Tensor, beside: Int8Weight, merged: Int8Weight, format: str) -> float:
    """How much larger the output's RMS error is when the branch is merged; residual and branch float32 [N, K], smoothed."""
    x = random_matrix(SAMPLED_ROWS, residual.shape[1], residual)
    seen = int8.dequantize(*int8.quantize(x))

    def error(form: Int8Weight, matrix: Tensor) -> Tensor:
        codes = int8.dequantize(form.qweight, form.wscales.unsqueeze(-1))
        return (seen @ codes.t() - x @ matrix.t()).square().sum()

    stored = ROUNDING_ERROR[format] ** 2 * (x @ residual.t()).square().sum()
    ratio = (stored + error(merged, residual + branch)) / (stored + error(beside, residual))
    return float(ratio.nan_to_num(nan=1.0, posinf=torch.inf).sqrt()) - 1
