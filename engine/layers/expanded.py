"""A weight dequantized once into a dense float type, its low-rank branch merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .branch import Branch, branches_of_side
from .matrix import from_matrix
from .storage import dequantize_storage

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Expanded:
    """weight: [N, K] or [N, C, kh, kw]; branches: fused adapters that its type is too coarse to take in."""

    weight: Tensor
    branches: tuple[Branch, ...]
    reason: str = ""

    @property
    def kind(self) -> str:
        return f"expanded {str(self.weight.dtype).removeprefix('torch.')}"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + sum(branch.nbytes for branch in self.branches)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = self._in_weight_dtype(F.linear, x, bias)
        for branch in self.branches:
            y = y + branch.linear(x)
        return y

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        y = self._in_weight_dtype(F.conv2d, x, bias, stride, padding, dilation)
        for branch in self.branches:
            y = y + branch.conv2d(x, stride, padding, dilation)
        return y

    def _in_weight_dtype(self, function: Any, x: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        if x.dtype == self.weight.dtype:
            return function(x, self.weight, bias, *geometry)
        bias = None if bias is None else bias.to(self.weight.dtype)
        return function(x.to(self.weight.dtype), self.weight, bias, *geometry).to(x.dtype)


def expand(weight: LowBitWeight, dtype: torch.dtype, reason: str) -> Expanded:
    """Dequantize into dtype; adapters are merged unless dtype is coarser than the one the layer computes in."""
    shape = tuple(weight.shape)
    if torch.finfo(dtype).eps <= torch.finfo(weight.dtype).eps:
        return Expanded(weight.dequantize().to(dtype), (), reason)
    matrix = dequantize_storage(weight.storage, weight.layer_format, shape)
    return Expanded(from_matrix(matrix, shape).to(dtype), branches_of_side(weight), reason)
