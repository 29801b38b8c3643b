"""Whether a weight that is folded to 8 bits takes its low-rank branch into its codes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..formats import LayerFormat, fp8, int8
from .fold_rows import fold_rows, smoothed_down
from .matrix import random_matrix
from .stored_rows import outer_scale, residual_in_units, row_chunks, stored_rows

# A branch is merged where that makes the output's error grow by no more than this.
MERGED_GROWTH = 0.05
SAMPLED_ROWS, SAMPLED_CHANNELS = 64, 256
# Relative RMS error that rounding to each format leaves in normally distributed weights, and so in their product.
ROUNDING_ERROR = {"int4": 0.1, "nvfp4": 0.09, "int8": 0.008, "fp8": 0.026}
FORMATS = {"int8": int8, "fp8": fp8}


def merges_branch(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...], format: str) -> bool:
    """The one rule for INT8 and E4M3, the same on every device up to the order of sums.

    The branch is merged unless that makes the error of the output, with the error that the storage has already, grow by more than
    MERGED_GROWTH on activations that smoothing left normal. At most SAMPLED_CHANNELS evenly spaced output channels are looked at.
    """
    return bool(layer_format.rank) and error_growth(storage, layer_format, shape, format) <= MERGED_GROWTH


def error_growth(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...], format: str) -> float:
    """How much larger the output's RMS error is when the branch is merged."""
    n, k = shape[0], math.prod(shape[1:])
    # Half of what a chunk may have: here two foldings are compared.
    most = min(SAMPLED_CHANNELS, max(row_chunks(n, k)[0].stop // 2, 1))
    sample = stored_rows(storage, layer_format, slice(0, n, -(-n // most)))
    x = sampled_activations(k).to(storage["qweight"].device)
    seen = FORMATS[format].dequantize(*FORMATS[format].quantize(x))
    down = smoothed_down(storage, layer_format, shape)
    residual = x @ residual_in_units(sample, layer_format).t()
    branch = (x @ down.t()) @ sample["proj_up"].float().t()
    outer = 1 if (outer := outer_scale(storage)) is None else outer

    def error(merged_down: Tensor | None, want: Tensor) -> Tensor:
        codes, scales = fold_rows(sample, layer_format, merged_down, format)
        got = seen @ FORMATS[format].dequantize(codes, scales.unsqueeze(-1)).t()
        return (outer * (got - want)).square().sum()

    stored = ROUNDING_ERROR[layer_format.weight] ** 2 * (outer * residual).square().sum()
    ratio = (stored + error(down, residual + branch)) / (stored + error(None, residual))
    return float(ratio.nan_to_num(nan=1.0, posinf=torch.inf).sqrt()) - 1


@functools.lru_cache(maxsize=4)
def sampled_activations(k: int) -> Tensor:
    """Float32 [SAMPLED_ROWS, k]; kept, because a model has few widths and many layers of each."""
    return random_matrix(SAMPLED_ROWS, k, torch.empty(0))
