"""A linear weight folded to INT8 with one scale per output channel, for INT8 activations with one scale per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import ops
from ..env import extension
from ..formats import int8
from .branch import Branch, branches_of_side, sum_branches
from .cpu_backend import DTYPES
from .matrix import smooth_columns
from .storage import dequantize_storage

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Int8Linear:
    """qweight int8 [N, K] with the low-rank branch and smooth [K] merged; wscales float32 [N]; no_rank [N, 0]."""

    qweight: Tensor
    wscales: Tensor
    smooth: Tensor | None
    no_rank: Tensor
    branches: tuple[Branch, ...]
    reason: str = ""
    kind: str = "int8 w8a8"

    @property
    def nbytes(self) -> int:
        tensors = [tensor for tensor in (self.qweight, self.wscales, self.smooth) if tensor is not None]
        return sum(tensor.nbytes for tensor in tensors) + sum(branch.nbytes for branch in self.branches)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = self._product(x.reshape(-1, x.shape[-1]), bias).unflatten(0, x.shape[:-1])
        return sum_branches(self.branches, x, y).to(x.dtype)

    def _product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        if extension() and type(rows) is Tensor and rows.dtype in DTYPES and not torch.compiler.is_compiling():
            from .cpu_kernels import linear_int8

            return linear_int8(rows, self.smooth, self.qweight, self.wscales, bias)
        qx, ascales, low_rank_act = ops.quantize_act(rows, self.smooth, None, "int8")
        return ops.gemm_w8a8(qx, ascales, self.qweight, self.wscales, low_rank_act, self.no_rank, bias, rows.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        raise NotImplementedError("conv2d: INT8 weights are prepared for linear layers only")


def fold(weight: LowBitWeight, reason: str) -> Int8Linear:
    """Fold the whole stored weight; user adapters stay beside it, as unfused ones are."""
    shape, smooth = tuple(weight.shape), weight.smooth_factor
    matrix = dequantize_storage(weight.storage, weight.layer_format, shape)
    return fold_matrix(matrix, None if smooth is None else smooth_columns(smooth, shape), branches_of_side(weight), reason)


def fold_matrix(matrix: Tensor, smooth: Tensor | None, branches: tuple[Branch, ...], reason: str) -> Int8Linear:
    """matrix: float32 [N, K], not smoothed."""
    codes, scales = int8.quantize(matrix if smooth is None else matrix * smooth)
    return Int8Linear(codes, scales.squeeze(-1), smooth, matrix.new_empty(matrix.shape[0], 0), branches, reason)
