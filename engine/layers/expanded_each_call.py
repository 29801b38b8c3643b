"""The dense form without its memory: a stored weight dequantized at each call, a part of the output channels at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..formats import LayerFormat
from .branch import Branch, branches_of_side, sum_branches
from .expanded import Expanded
from .matrix import from_matrix
from .storage import dequantize_storage
from .stored_rows import WORKING_BYTES, row_chunks, stored_rows

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class ExpandedEachCall:
    """storage: the stored tensors by name; dtype: of the product; branches: fused adapters."""

    storage: tuple[tuple[str, Tensor], ...]
    layer_format: LayerFormat
    shape: tuple[int, ...]
    dtype: torch.dtype
    branches: tuple[Branch, ...]
    reason: str = ""

    @property
    def kind(self) -> str:
        return f"streamed {str(self.dtype).removeprefix('torch.')}"

    @property
    def nbytes(self) -> int:
        return sum(branch.nbytes for branch in self.branches)

    @property
    def workspace_bytes(self) -> int:
        return WORKING_BYTES

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = self._in_parts(lambda part, bias: part.linear(x, bias), bias, dim=-1)
        return sum_branches(self.branches, x, y).to(x.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        y = self._in_parts(lambda part, bias: part.conv2d(x, bias, stride, padding, dilation), bias, dim=-3)
        return sum_branches(self.branches, x, y, (stride, padding, dilation)).to(x.dtype)

    def _in_parts(self, run: Callable[[Expanded, Tensor | None], Tensor], bias: Tensor | None, dim: int) -> Tensor:
        """Channel by channel each part computes what the whole dense weight would."""
        n, k = self.shape[0], math.prod(self.shape[1:])
        parts = [run(self._expanded(rows), None if bias is None else bias[rows]) for rows in row_chunks(n, k)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)

    def _expanded(self, rows: slice) -> Expanded:
        part = stored_rows(dict(self.storage), self.layer_format, rows)
        shape = (rows.stop - rows.start, *self.shape[1:])
        return Expanded(from_matrix(dequantize_storage(part, self.layer_format, shape), shape).to(self.dtype), ())


def expand_each_call(weight: LowBitWeight, dtype: torch.dtype, reason: str) -> ExpandedEachCall:
    storage, branches = tuple(weight.storage.items()), branches_of_side(weight)
    return ExpandedEachCall(storage, weight.layer_format, tuple(weight.shape), dtype, branches, reason)
