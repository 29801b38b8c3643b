"""Which products quantize their output for the next layer in their own launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP_SIZE = {"int4": 64, "nvfp4": 16}
# Every configuration's tile can be made as wide; with wider ones registers would spill.
MOST_COLUMNS = 128
# Of an 8-bit segment: the code of a tile grows with the number of its segments.
LEAST_COLUMNS = 32


@dataclass(frozen=True)
class QuantizeArgs:
    """The arguments of `quantize_act` after x."""

    smooth: Tensor | None
    proj_down: Tensor | None
    format: str
    shift: float = 0.0
    unsigned: bool = False
    segments: int = 1
    four_over_six: bool = False

    @property
    def rank(self) -> int:
        return 0 if self.proj_down is None else self.proj_down.shape[1]

    def columns_of_scale(self, width: int) -> int:
        """Neighbouring columns of x [M, width] that share one scale."""
        return GROUP_SIZE.get(self.format, width // self.segments)


def quantizes_in_tile(n: int, out_dtype: torch.dtype, glu: str, next: QuantizeArgs) -> bool:
    """Whether `<product>_act_quantize` with N = n quantizes in the product's epilogue.

    That is one launch, and one more that adds partial sums where the next layer has a low-rank branch. It takes 16-bit
    activations that share a scale in groups of 4-bit formats, or in segments of 32, 64 or 128 columns; gated units at most 64.
    """
    gated = glu != "none"
    columns = next.columns_of_scale(n // 2 if gated else n)
    tiles = next.format in GROUP_SIZE or columns >= LEAST_COLUMNS and columns & (columns - 1) == 0
    fits = tiles and columns * (2 if gated else 1) <= MOST_COLUMNS
    return fits and out_dtype.itemsize == 2 and (not next.rank or next.proj_down.dtype == out_dtype)
