"""What fused blocks compute with: an input quantized once for all products that read it, and those products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...layers.streamed_form import StreamedForm
from ...ops import OPS
from ...ops.registry import PREFERENCE, Op, named_backend

PRODUCTS = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4", "int8": "gemm_w8a8", "fp8": "gemm_w8a8"}
# Rows of the example calls that backends are asked about; what they reject does not depend on it.
EXAMPLE_ROWS = 8

Codes = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over the last dimension."""

    eps: float
    weight: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class Input:
    """How rows are quantized for the products that read them: smooth [K], proj_down [K, R]."""

    format: str
    smooth: Tensor | None
    proj_down: Tensor | None
    shift: float
    four_over_six: bool

    @property
    def arguments(self) -> tuple:
        """Those of `quantize_act` behind x."""
        return self.smooth, self.proj_down, self.format, self.shift, self.shift > 0, 1, self.four_over_six

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

    def _arguments(self, codes: Codes, out_dtype: torch.dtype) -> tuple:
        qx, ascales, low_rank_act = codes
        # All channels at once: in parts the epilogue would need its gate and residual in parts too.
        qweight = self.qweight if self.streamed is None else self.streamed.codes(slice(None))
        weight = (qweight, self.wscales, *((self.wtscale,) if self.format == "nvfp4" else ()))
        flags = (self.unsigned,) if self.format == "int4" else ()
        return (qx, ascales, *weight, low_rank_act, self.proj_up, self.bias, *flags, out_dtype)

    def multiply(self, codes: Codes, out_dtype: torch.dtype) -> Tensor:
        """activation(x @ weight^T + bias) [M, N]."""
        arguments = self._arguments(codes, out_dtype)
        if self.activation == "none":
            return OPS[PRODUCTS[self.format]](*arguments)
        return OPS[f"{PRODUCTS[self.format]}_act"](*arguments, self.activation, "none")

    def gate_residual(self, codes: Codes, gate: Tensor, residual: Tensor) -> Tensor:
        """residual [M, N] + gate [B, N] * the product."""
        return OPS[f"{PRODUCTS[self.format]}_gate_residual"](*self._arguments(codes, residual.dtype), gate, residual)

    def columns(self, start: int, stop: int) -> Product:
        """The part of an 8-bit product that these columns of x make, without the bias. Copies the codes."""
        return replace(self, qweight=self.qweight[:, start:stop].contiguous(), bias=None)


@dataclass(frozen=True)
class Handover:
    """A product whose output goes through its activation into `next`; in one op where a fast backend has it.

    input: what the product reads; dtype: of the activations in between.
    """

    product: Product
    input: Input
    next: Input
    dtype: torch.dtype
    in_one_op: bool

    def codes(self, codes: Codes) -> Codes:
        if not self.in_one_op:
            return self.next.quantize(self.product.multiply(codes, self.dtype))
        op, arguments = _act_quantize(self.product, self.next, codes, self.dtype)
        return op(*arguments)

    def chosen_anew(self) -> Handover:
        return hand_over(self.product, self.input, self.next, self.dtype)


def _act_quantize(product: Product, next: Input, codes: Codes, dtype: torch.dtype) -> tuple[Op, tuple]:
    op = OPS[f"{PRODUCTS[product.format]}_act_quantize"]
    return op, (*product._arguments(codes, dtype), product.activation, "none", *next.arguments)


def hand_over(product: Product, input: Input, next: Input, dtype: torch.dtype) -> Handover:
    x = torch.empty(EXAMPLE_ROWS, product.k, dtype=dtype, device=product.qweight.device)
    op, arguments = _act_quantize(product, next, OPS["quantize_act"].fake(x, *input.arguments), dtype)
    return Handover(product, input, next, dtype, is_fast(op, product.qweight.device, arguments))


def is_fast(op: Op, device: torch.device, arguments: tuple) -> bool:
    """Whether a call runs on the backend asked for, or else on another than the reference, or the op has no other here."""
    if named := named_backend():
        return op.missing(named) is None and op.rejects[named](*arguments) is None
    backends = (backend for backend in PREFERENCE.get(device.type, ()) if backend != "reference")
    present = [backend for backend in backends if op.missing(backend) is None]
    return not present or any(op.rejects[backend](*arguments) is None for backend in present)


@dataclass(frozen=True)
class Group:
    """Products of one input; each with the layers whose outputs it gives side by side, as (name, N)."""

    input: Input
    products: tuple[tuple[tuple[tuple[str, int], ...], Product], ...]


def outputs(groups: tuple[Group, ...], quantize: Callable[[Input], Codes], dtype: torch.dtype) -> dict[str, Tensor]:
    """Layer -> its output [M, N]."""
    found: dict[str, Tensor] = {}
    for group in groups:
        codes = quantize(group.input)
        for layers, product in group.products:
            sides = product.multiply(codes, dtype).split([n for _, n in layers], -1)
            found.update(zip((name for name, _ in layers), sides, strict=True))
    return found
