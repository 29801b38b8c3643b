"""A linear weight folded to INT8 with one scale per output channel, for INT8 activations with one scale per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import ops
from ..env import extension
from ..ops.cpu import DTYPES, PackedWeight, pack
from .branch import Branch, branches_of_side, sum_branches
from .fold import FoldedWeight, fold

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Int8Linear:
    """weight: run by the ops, or packed for the C++ kernel of this CPU; smooth: float32 [K]; branches: fused user adapters."""

    weight: FoldedWeight | PackedWeight
    smooth: Tensor | None
    branches: tuple[Branch, ...]
    reason: str = ""
    kind: str = "int8 w8a8"

    @property
    def nbytes(self) -> int:
        names = ("data",) if isinstance(self.weight, PackedWeight) else ("qweight", "wscales", "proj_down", "proj_up")
        tensors = [self.smooth, *(getattr(self.weight, name) for name in names)]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None) + sum(branch.nbytes for branch in self.branches)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if isinstance(self.weight, PackedWeight):
            y = self.weight.linear(rows.to(self.weight.dtype), self.smooth, bias)
        else:
            y = by_ops(self.weight, rows, bias)
        return sum_branches(self.branches, x, y.unflatten(0, x.shape[:-1])).to(x.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        raise NotImplementedError("conv2d: a linear layer's weight needed, got a convolution")


def by_ops(weight: FoldedWeight, rows: Tensor, bias: Tensor | None) -> Tensor:
    """rows [M, K] -> [M, N] of the same dtype."""
    qx, ascales, low_rank_act = ops.quantize_act(rows, weight.smooth, weight.proj_down, "int8")
    proj_up = rows.new_empty(weight.qweight.shape[0], 0) if weight.proj_up is None else weight.proj_up
    return ops.gemm_w8a8(qx, ascales, weight.qweight, weight.wscales, low_rank_act, proj_up, bias, rows.dtype)


def fold_linear(weight: LowBitWeight, reason: str) -> Int8Linear:
    """Fold the stored weight; user adapters stay beside it, as unfused ones are."""
    folded = fold(weight.storage, weight.layer_format, tuple(weight.shape))
    return int8_linear(folded, weight.dtype, branches_of_side(weight), reason)


def int8_linear(weight: FoldedWeight, dtype: torch.dtype, branches: tuple[Branch, ...] = (), reason: str = "") -> Int8Linear:
    """For activations of dtype, packed where a C++ kernel takes them."""
    if not extension() or dtype not in DTYPES or weight.qweight.shape[1] % 4:
        return Int8Linear(weight, weight.smooth, branches, reason)
    packed = pack(weight.qweight, weight.wscales, weight.proj_down, weight.proj_up, dtype)
    return Int8Linear(packed, weight.smooth, branches, reason)
