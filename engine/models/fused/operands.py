"""What fused blocks compute with: an input quantized once for all products that read it, and those products."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...layers.streamed_form import StreamedForm
from ...ops import OPS
from ...ops.registry import Op

PRODUCTS = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4", "int8": "gemm_w8a8", "fp8": "gemm_w8a8"}

Codes = tuple[Tensor, Tensor, Tensor]


def side_by_side(first: Codes, second: Codes) -> Codes:
    """Those of the columns of both, whose scales are each of as many columns; low-rank branches are sums over columns."""
    codes, scales = (joined(first[i], second[i], dim) for i, dim in ((0, 1), (1, 0)))
    return codes, scales, first[2] + second[2]


def joined(first: Tensor, second: Tensor, dim: int) -> Tensor:
    return torch.cat([first.view(torch.uint8), second.view(torch.uint8)], dim).view(first.dtype)


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over the last dimension."""

    eps: float
    weight: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class Input:
    """How rows are quantized for the products that read them: smooth [K], proj_down [K, R]; segments: scales of 8-bit rows."""

    format: str
    smooth: Tensor | None
    proj_down: Tensor | None
    shift: float
    four_over_six: bool
    segments: int = 1

    @property
    def arguments(self) -> tuple:
        """Those of `quantize_act` behind x."""
        return self.smooth, self.proj_down, self.format, self.shift, self.shift > 0, self.segments, self.four_over_six

    def quantize(self, x: Tensor) -> Codes:
        return OPS["quantize_act"](x, *self.arguments)

    def norm_quantize(self, x: Tensor, norm: Norm, mod_scale: Tensor, mod_shift: Tensor) -> Codes:
        return OPS["norm_quantize"](x, "layer", norm.eps, norm.weight, norm.bias, mod_scale, mod_shift, *self.arguments)

    def columns(self, start: int, stop: int) -> Input:
        """The same for these columns of x alone."""
        smooth, down = (None if t is None else t[start:stop].contiguous() for t in (self.smooth, self.proj_down))
        return replace(self, smooth=smooth, proj_down=down)


@dataclass(frozen=True)
class Product:
    """One product with low-bit codes: the operands of its op in `PRODUCTS`, and its activation function.

    streamed: folds the stored codes, which qweight then are, to those of the product at each call.
    """

    format: str
    qweight: Tensor
    wscales: Tensor
    wtscale: Tensor | None
    proj_up: Tensor
    bias: Tensor | None
    unsigned: bool
    activation: str = "none"
    streamed: StreamedForm | None = None

    @property
    def k(self) -> int:
        packed = self.streamed is not None or self.wscales.dim() == 2
        return self.qweight.shape[1] * (2 if packed else 1)

    @property
    def n(self) -> int:
        return len(self.qweight)

    def arguments(self, codes: Codes, out_dtype: torch.dtype) -> tuple:
        qx, ascales, low_rank_act = codes
        # All channels at once: in parts the epilogue would need its gate and residual in parts too.
        qweight = self.qweight if self.streamed is None else self.streamed.codes(slice(None))
        weight = (qweight, self.wscales, *((self.wtscale,) if self.format == "nvfp4" else ()))
        flags = (self.unsigned,) if self.format == "int4" else ()
        return (qx, ascales, *weight, low_rank_act, self.proj_up, self.bias, *flags, out_dtype)

    def multiply(self, codes: Codes, out_dtype: torch.dtype) -> Tensor:
        """activation(x @ weight^T + bias) [M, N]."""
        op, arguments = self.call(codes, out_dtype)
        return op(*arguments)

    def call(self, codes: Codes, out_dtype: torch.dtype) -> tuple[Op, tuple]:
        arguments = self.arguments(codes, out_dtype)
        if self.activation == "none":
            return OPS[PRODUCTS[self.format]], arguments
        return OPS[f"{PRODUCTS[self.format]}_act"], (*arguments, self.activation, "none")

    def gate_residual(self, codes: Codes, gate: Tensor, residual: Tensor) -> Tensor:
        """residual [M, N] + gate [B, N] * the product."""
        return OPS[f"{PRODUCTS[self.format]}_gate_residual"](*self.arguments(codes, residual.dtype), gate, residual)

    def columns(self, start: int, stop: int) -> Product:
        """The part of an 8-bit product that these columns of x make, without the bias. Copies the codes."""
        return replace(self, qweight=self.qweight[:, start:stop].contiguous(), bias=None)
