"""Tiled matrix products and their epilogues on the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .next_layer import NextLayer
from .operands import ACTIVATION_CODE, DTYPE_CODE, GLU_CODE, addresses, dense, one_half_dtype, stream_of
from .quantize import Quantization


# As csrc/cuda chooses its tiles; a test compares.
BLOCK_N, W8A8_NEXT_LAYER_BLOCK_N = 128, 256


@dataclass(frozen=True)
class Epilogue:
    """What follows the product in the same kernel; see `ops.epilogues`. next: how the output is quantized for the next layer."""

    activation: str = "none"
    glu: str = "none"
    gate: Tensor | None = None
    residual: Tensor | None = None
    next: Quantization | None = None

    def width(self, n: int) -> int:
        return n if self.glu == "none" else n // 2


@dataclass(frozen=True)
class Product:
    """The operands of one product: codes [M, row_bytes] and [N, row_bytes] with their scales, and what is added."""

    qx: Tensor
    ascales: Tensor
    qweight: Tensor
    wscales: Tensor
    wtscale: Tensor | None
    low_rank_act: Tensor
    proj_up: Tensor
    bias: Tensor | None
    out_dtype: torch.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The 16-bit dtype of everything that is neither code nor output."""
        return self.low_rank_act.dtype

    def reason_against(self, epilogue: Epilogue = Epilogue()) -> str | None:
        out_dtype = None if self.out_dtype == torch.float32 else self.out_dtype
        bias, residual, gate = (None if t is None else t.dtype for t in (self.bias, epilogue.residual, epilogue.gate))
        companions = {"low_rank_act": self.low_rank_act.dtype, "proj_up": self.proj_up.dtype, "bias": bias}
        if reason := one_half_dtype(**companions, residual=residual, gate=gate, out_dtype=out_dtype):
            return reason
        n = self.qweight.shape[0]
        needed = 8 if epilogue.glu == "none" else 16
        if n % needed:
            return f"N must be a multiple of {needed}, got {n}"
        if self.proj_up.shape[1] % 8:
            return f"the rank must be a multiple of 8, got {self.proj_up.shape[1]}"
        if self.qx.shape[1] % 16 or not self.qx.numel():
            return f"rows of codes must be a multiple of 16 bytes and not empty, got {list(self.qx.shape)}"
        if epilogue.next is None:
            return None
        if self.out_dtype == torch.float32:
            return "activations of the next layer must be rounded to 16 bits, got float32"
        hidden_states = torch.empty(self.qx.shape[0], epilogue.width(n), dtype=self.out_dtype, device="meta")
        return epilogue.next.reason_against(hidden_states)

    def output(self, width: int, given: Tensor | None) -> Tensor:
        """[M, width], fresh unless given. Raises ValueError for one of another shape or dtype, or whose rows are not dense."""
        shape = self.low_rank_act.shape[0], width
        if given is None:
            return torch.empty(shape, dtype=self.out_dtype, device=self.qx.device)
        if given.shape != shape or given.dtype != self.out_dtype or given.stride(1) != 1:
            got = f"{given.dtype} {list(given.shape)} with strides {list(given.stride())}"
            raise ValueError(f"out: {self.out_dtype} {list(shape)} with dense rows needed, got {got}")
        return given

    def run(
        self,
        kernels: ModuleType,
        name: str,
        *flags: Any,
        epilogue: Epilogue = Epilogue(),
        block_n: int = 0,
        out: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Launch the kernel `name`, which takes the operands, its own flags, the dtype and the stream.

        block_n: columns of its tiles, where the output is quantized. out: where it goes otherwise, [M, N] whose rows may lie apart
        by a multiple of 8 elements; fresh unless given.
        """
        # A convolution has as many rows as output pixels, and K is a pixel's channels once for every tap.
        m, row_bytes = self.low_rank_act.shape[0], self.qweight.shape[1]
        n, rank = self.proj_up.shape
        fields = ("qx", "ascales", "qweight", "wscales", "wtscale", "low_rank_act", "proj_up", "bias")
        tensors = {field: dense(getattr(self, field)) for field in fields}
        tensors |= {"gate": dense(epilogue.gate), "residual": dense(epilogue.residual)}
        next_layer = None
        if epilogue.next is None:
            tensors["out"] = self.output(epilogue.width(n), out)
        else:
            next_layer = NextLayer(epilogue.next, m, epilogue.width(n), -(-n // block_n), self.out_dtype, self.qx.device)
        given = addresses(kernels, **tensors, **(next_layer.tensors if next_layer else {}))
        *operands, bias, gate, residual, target = (*given[:10], *(given[10:] if next_layer is None else [0]))
        after = kernels.EpilogueArguments(
            bias, gate, residual, target, 1 if epilogue.gate is None else m // epilogue.gate.shape[0],
            0 if next_layer else tensors["out"].stride(0), DTYPE_CODE[self.out_dtype], ACTIVATION_CODE[epilogue.activation],
            GLU_CODE[epilogue.glu], next_layer.arguments(kernels, given[10:]) if next_layer else kernels.NextLayerArguments(),
        )  # fmt: skip
        segment_bytes = self.qx.shape[1] // self.ascales.shape[0]
        arguments = kernels.GemmArguments(*operands, m, self.ascales.shape[1], n, row_bytes, rank, segment_bytes, after)
        getattr(kernels, name)(arguments, *flags, DTYPE_CODE[self.dtype], stream_of(self.qx))
        return tensors["out"] if next_layer is None else next_layer.outputs


def product_w4a4(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype) -> Product:
    return Product(qx, ascales, qweight, wscales, None, low_rank_act, proj_up, bias, out_dtype)


def next_segments_reject(epilogue: Epilogue, n: int, block_n: int) -> str | None:
    """8-bit scales of the next layer must come from one tile."""
    if epilogue.next is None or epilogue.next.format not in ("int8", "fp8"):
        return None
    columns, widest = epilogue.width(n) // epilogue.next.segments, epilogue.width(block_n)
    if columns > widest or columns & (columns - 1):
        return f"segments of the next layer must be a power of two and at most {widest} columns wide, got {columns}"
    return None


def gemm_w4a4_rejects(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, act_unsigned, out_dtype, *epilogue):
    product = product_w4a4(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype)
    scales = one_half_dtype(ascales=ascales.dtype, wscales=wscales.dtype, low_rank_act=low_rank_act.dtype)
    return product.reason_against(*epilogue) or scales or next_segments_reject(*(epilogue or (Epilogue(),)), qweight.shape[0], BLOCK_N)


def gemm_w4a4(
    kernels, qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, act_unsigned, out_dtype, epilogue=Epilogue()
) -> Tensor:
    product = product_w4a4(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype)
    block_n = kernels.choose_gemm_w4a4_tile(qx.shape[0], qweight.shape[0], True).block_n
    return product.run(kernels, "gemm_w4a4", act_unsigned, epilogue=epilogue, block_n=block_n)


def gemm_nvfp4_rejects(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype, *epilogue):
    product = Product(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype)
    return product.reason_against(*epilogue) or next_segments_reject(*(epilogue or (Epilogue(),)), qweight.shape[0], BLOCK_N)


def gemm_nvfp4(
    kernels, qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype, epilogue=Epilogue()
) -> Tensor:
    product = Product(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype)
    block_n = kernels.choose_gemm_nvfp4_tile(qx.shape[0], qweight.shape[0], True).block_n
    return product.run(kernels, "gemm_nvfp4", epilogue=epilogue, block_n=block_n)
