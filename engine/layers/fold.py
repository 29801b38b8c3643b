"""A stored weight as 8-bit codes with one scale per output channel, for activations with one scale per token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import LayerFormat
from ..ops.operands import CODE_DTYPE
from .fold_rows import fold_rows, scale_of, smoothed_down
from .matrix import smooth_columns
from .merged_branch import merges_branch
from .stored_rows import WORKING_BYTES, outer_scale, residual_in_units, row_chunks, stored_rows


@dataclass(frozen=True)
class FoldedWeight:
    """qweight int8 or e4m3 [N, K] of the weight times smooth float32 [K]; wscales float32 [N].

    proj_down [K, R] and proj_up [N, R] are None where there is no branch, or it was merged.
    """

    qweight: Tensor
    wscales: Tensor
    smooth: Tensor | None
    proj_down: Tensor | None = None
    proj_up: Tensor | None = None

    @property
    def rank(self) -> int:
        return 0 if self.proj_up is None else self.proj_up.shape[1]


def fold(
    storage: Mapping[str, Tensor],
    layer_format: LayerFormat,
    shape: tuple[int, ...],
    format: str = "int8",
    working_bytes: int = WORKING_BYTES,
) -> FoldedWeight:
    """Fold to "int8" or "fp8", the low-rank branch merged where `merges_branch` says so.

    The branch reads x itself. Merged, it reads the codes of x and costs nothing. Every output channel is folded by itself: neither the
    bytes to work in nor the device change a bit, but for the order in which a merged branch's ranks are summed.
    """
    n, k = shape[0], math.prod(shape[1:])
    smooth = smooth_columns(storage["smooth_factor"], shape) if layer_format.smooth else None
    merged = merges_branch(storage, layer_format, shape, format)
    down = smoothed_down(storage, layer_format, shape) if merged else None
    device = storage["qweight"].device
    codes, scales = torch.empty(n, k, dtype=CODE_DTYPE[format], device=device), torch.empty(n, device=device)
    for rows in row_chunks(n, k, working_bytes):
        codes[rows], scales[rows] = fold_rows(stored_rows(storage, layer_format, rows), layer_format, down, format)
    outer = outer_scale(storage)
    wscales = scales if outer is None else scales * outer
    if merged or not layer_format.rank:
        return FoldedWeight(codes, wscales, smooth)
    return FoldedWeight(codes, wscales, smooth, storage["proj_down"], storage["proj_up"])


def channel_scales(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...], format: str) -> Tensor:
    """The scales of `fold` without a merged branch, in units of the outer scale, for codes that are folded later: float32 [N]."""
    chunks = (stored_rows(storage, layer_format, rows) for rows in row_chunks(shape[0], math.prod(shape[1:])))
    return torch.cat([scale_of(residual_in_units(chunk, layer_format), format) for chunk in chunks])
