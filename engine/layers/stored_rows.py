"""Stored weights taken a few output channels at a time, so that what is derived from them needs little memory on the way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..formats import LayerFormat
from .storage import dequantize_residual

FOUR_BITS = ("int4", "nvfp4")
# Most bytes that a derivation holds beside the stored tensors and its result.
WORKING_BYTES = 64 * 2**20
# Of one weight while it is dequantized, scaled and rounded: float32 before and after, or 16-bit and 8-bit codes on the way there.
BYTES_PER_WEIGHT = 16
ROW_MULTIPLE = 8


def row_chunks(n: int, k: int, working_bytes: int = WORKING_BYTES) -> list[slice]:
    """The n rows of a weight [n, k] in chunks that can be worked on within so many bytes, or 8 rows where even one would not."""
    rows = max(working_bytes // (BYTES_PER_WEIGHT * k) // ROW_MULTIPLE, 1) * ROW_MULTIPLE
    return [slice(first, min(first + rows, n)) for first in range(0, n, rows)]


def stored_rows(storage: Mapping[str, Tensor], layer_format: LayerFormat, rows: slice) -> dict[str, Tensor]:
    """The stored tensors of these output channels, as views."""
    wscales = storage["wscales"]
    wscales = wscales[:, rows] if layer_format.weight in FOUR_BITS else wscales[rows]
    part = {"qweight": storage["qweight"][rows], "wscales": wscales}
    if layer_format.rank:
        part["proj_up"] = storage["proj_up"][rows]
    return {name: part.get(name, tensor) for name, tensor in storage.items()}


def outer_scale(storage: Mapping[str, Tensor]) -> Tensor | None:
    """The scale of the whole weight, float32 [1], where its format has one."""
    return storage.get("wtscale")


def residual_in_units(storage: Mapping[str, Tensor], layer_format: LayerFormat) -> Tensor:
    """`dequantize_residual` in units of the outer scale: float32 [N, K], a new tensor."""
    if (outer := outer_scale(storage)) is None:
        return dequantize_residual(storage, layer_format)
    return dequantize_residual({**storage, "wtscale": torch.ones_like(outer)}, layer_format)
