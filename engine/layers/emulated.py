"""What a GPU with low-bit tensor cores computes, on any device and up to the order of summation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from ..formats import LayerFormat, int8
from .branch import Branch, branches_of_side, low_rank_branch, sum_branches
from .fake_quantize import fake_quantize
from .matrix import from_matrix
from .storage import dequantize_residual

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Emulated:
    """weight: the dequantized residual, still smoothed, float32 [N, K] or [N, C, kh, kw]; smooth: float32 [K], per input channel.

    activation: the format activations are rounded to, None for 16-bit ones.
    """

    weight: Tensor
    smooth: Tensor | None
    branches: tuple[Branch, ...]
    layer_format: LayerFormat
    activation: str | None
    kind: str
    reason: str = ""

    @property
    def nbytes(self) -> int:
        tensors = [self.weight] if self.smooth is None else [self.weight, self.smooth]
        return sum(tensor.nbytes for tensor in tensors) + sum(branch.nbytes for branch in self.branches)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = F.linear(self.rounded(x), self.weight, None if bias is None else bias.float())
        return sum_branches(self.branches, x, y).to(x.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        geometry = (stride, padding, dilation)
        # Scales belong to a pixel: its channels are the rows that are quantized, before any padding.
        rounded = self.rounded(x.movedim(1, -1)).movedim(-1, 1)
        y = F.conv2d(rounded, self.weight, None if bias is None else bias.float(), *geometry)
        return sum_branches(self.branches, x, y, geometry).to(x.dtype)

    def rounded(self, x: Tensor) -> Tensor:
        """x [..., K] smoothed and rounded -> float32 [..., K]."""
        shift = self.layer_format.act_shift if self.activation == "int4" else 0.0
        y = x.float() + shift if shift else x.float()
        if self.smooth is not None:
            y = y / self.smooth
        if self.activation is None:
            return y
        y = fake_quantize(y, self.activation, shift > 0, x.dtype, self.layer_format.four_over_six)
        # The same as folding the shift into the bias, which would need a second product here.
        return y if not shift else y - (shift if self.smooth is None else shift / self.smooth)


def emulate(weight: LowBitWeight, fold_to_int8: bool) -> Emulated:
    """Prepare the stored format's own numerics, or the 4-bit storage folded to one INT8 scale per channel (w4a8)."""
    layer_format, shape = weight.layer_format, tuple(weight.shape)
    residual = dequantize_residual(weight.storage, layer_format)
    activation = layer_format.activation
    if fold_to_int8 and activation is not None:
        residual, activation = int8.dequantize(*int8.quantize(residual)), "int8"
    bits = {"int4": "a4", "nvfp4": "a4", "int8": "a8", "fp8": "a8", None: "a16"}[activation]
    return Emulated(
        weight=from_matrix(residual, shape),
        smooth=weight.smooth_factor.float() if layer_format.smooth else None,
        branches=low_rank_branch(weight) + branches_of_side(weight),
        layer_format=layer_format,
        activation=activation,
        kind=f"emulated {'nvfp4 ' if layer_format.weight == 'nvfp4' else ''}w4{bits}",
        reason=f"numerics {weight.numerics} was asked for",
    )
