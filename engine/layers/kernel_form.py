"""The form that runs low-bit kernels: activations quantized, multiplied with stored or folded codes, the low-rank branch fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops.conv2d import out_size
from ..ops.native.gemm_w4a16 import MAX_ROWS
from .branch import Branch, sum_branches
from .matrix import from_matrix, kernel_of

if TYPE_CHECKING:
    from .weight import LowBitWeight

Pair = Any  # of torch: an int or two
CONVOLVED_CHANNELS = 64


def pair(value: Pair) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


@dataclass(frozen=True)
class KernelForm:
    """qweight, wscales, wtscale: codes of the residual; activation: their format, or None for 16-bit activations.

    smooth [C]; proj_down [K, R] and proj_up [N, R] in the compute dtype; shift_product float32 [N]: what act_shift adds to the
    output, taken off in the bias; branches: user adapters; nbytes: of what is not a stored tensor itself.
    """

    activation: str | None
    qweight: Tensor
    wscales: Tensor
    wtscale: Tensor | None
    smooth: Tensor | None
    proj_down: Tensor | None
    proj_up: Tensor
    shift_product: Tensor | None
    act_shift: float
    four_over_six: bool
    shape: tuple[int, ...]
    branches: tuple[Branch, ...]
    nbytes: int
    reason: str = ""

    @property
    def kind(self) -> str:
        return f"kernel {self.activation or 'w4a16'}"

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = self._sixteen_bit(rows, bias) if self.activation is None else self._low_bit(rows, bias)
        return sum_branches(self.branches, x, y.unflatten(0, x.shape[:-1])).to(x.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
        geometry = (stride, padding, dilation)
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        qx, ascales, _ = ops.quantize_act(pixels, self.smooth, None, self.activation, four_over_six=self.four_over_six)
        y = ops.conv2d(
            qx, ascales, self.qweight, self.wscales, self.wtscale, self._low_rank_pixels(x, geometry), self.proj_up, bias,
            self.activation, [batch, height, width], list(kernel_of(self.shape)), *map(pair, geometry), x.dtype,
        )  # fmt: skip
        return sum_branches(self.branches, x, y.permute(0, 3, 1, 2), geometry).to(x.dtype)

    def _low_rank_pixels(self, x: Tensor, geometry: tuple[Pair, Pair, Pair]) -> Tensor:
        """The down projection is a convolution of R output channels in the compute dtype: [B * Ho * Wo, R]."""
        if self.proj_down is None:
            height, width = out_size([1, *x.shape[2:]], list(kernel_of(self.shape)), *map(pair, geometry))
            return x.new_empty(x.shape[0] * height * width, 0)
        rank = self.proj_down.shape[1]
        down = from_matrix(self.proj_down.t(), (rank, *self.shape[1:]))
        return F.conv2d(x, down, None, *geometry).permute(0, 2, 3, 1).reshape(-1, rank)

    def quantized(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """rows [M, K] -> qx, ascales and low_rank_act of `quantize_act`."""
        unsigned = self.act_shift > 0
        return ops.quantize_act(
            rows, self.smooth, self.proj_down, self.activation, self.act_shift, unsigned, 1, self.four_over_six
        )

    def _low_bit(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        unsigned = self.act_shift > 0
        qx, ascales, low_rank_act = self.quantized(rows)
        operands = (low_rank_act, self.proj_up, self._shifted_back(bias, rows.dtype))
        if self.activation == "int4":
            return ops.gemm_w4a4(qx, ascales, self.qweight, self.wscales, *operands, unsigned, rows.dtype)
        if self.activation == "nvfp4":
            return ops.gemm_nvfp4(qx, ascales, self.qweight, self.wscales, self.wtscale, *operands, rows.dtype)
        return ops.gemm_w8a8(qx, ascales, self.qweight, self.wscales, *operands, rows.dtype)

    def _shifted_back(self, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if self.shift_product is None:
            return bias
        return (-self.shift_product if bias is None else bias - self.shift_product).to(dtype)

    def _sixteen_bit(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        low_rank_act = rows.new_empty(rows.shape[0], 0) if self.proj_down is None else rows @ self.proj_down
        parts = [
            ops.gemm_w4a16(few, self.smooth, self.qweight, self.wscales, self.wtscale, low, self.proj_up, bias, rows.dtype)
            for few, low in zip(rows.split(MAX_ROWS), low_rank_act.split(MAX_ROWS), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)



def reason_against(weight: LowBitWeight, activation: str | None) -> str | None:
    """One sentence why no kernels compute this weight so, or None."""
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return f"kernels compute in float16 or bfloat16, not {str(weight.dtype).removeprefix('torch.')}"
    if weight.ndim == 4 and (activation is None or weight.shape[1] % CONVOLVED_CHANNELS):
        what = "16-bit activations" if activation is None else f"{weight.shape[1]} channels, no multiple of {CONVOLVED_CHANNELS}"
        return f"no kernel convolves {what}"
    if activation is None and weight.layer_format.weight not in ("int4", "nvfp4"):
        return f"no kernel multiplies 16-bit activations with {weight.layer_format.weight} weights"
    return None
