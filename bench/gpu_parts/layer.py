"""A random linear layer in one number format, and its calls through the ops of one backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from halfbyte.formats import quantize_weight
from halfbyte.ops import OPS, use_backend

PRODUCTS = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4", "int8": "gemm_w8a8", "fp8": "gemm_w8a8"}


class Layer:
    """x [M, K] -> y [M, N], bfloat16, weight of standard deviation K^-1/2, smoothed, with bias and a low-rank branch."""

    def __init__(self, m: int, n: int, k: int, device: str, seed: int = 0) -> None:
        generator = torch.Generator(device).manual_seed(seed + m + n + k)
        self.normal = partial(torch.randn, generator=generator, device=device, dtype=torch.bfloat16)
        self.size = (m, n, k)
        self.x = self.normal(m, k)
        self.weight = self.normal(n, k) * k**-0.5
        self.bias = self.normal(n)
        self.smooth = self.normal(k).abs() + 0.5
        self.mod_scale, self.mod_shift = self.normal(1, k) * 0.1, self.normal(1, k) * 0.1
        self._factors = (self.normal(k, 64) * k**-0.5, self.normal(n, 64) * 0.1)
        self._codes: dict[str, tuple[Tensor, ...]] = {}

    @property
    def flop(self) -> int:
        m, n, k = self.size
        return 2 * m * n * k

    def factors(self, rank: int) -> tuple[Tensor | None, Tensor]:
        """proj_down [K, R] or None, proj_up [N, R]."""
        down, up = self._factors
        return (down[:, :rank].contiguous() if rank else None), up[:, :rank].contiguous()

    def codes(self, format: str) -> tuple[Tensor, ...]:
        if format not in self._codes:
            self._codes[format] = tuple(quantize_weight(self.weight.float(), format, torch.bfloat16).values())
        return self._codes[format]

    def quantize(self, x: Tensor, format: str, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        return OPS["quantize_act"](x, self.smooth, self.factors(rank)[0], format)

    def norm_quantize(self, x: Tensor, format: str, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        modulation = (self.mod_scale, self.mod_shift)
        return OPS["norm_quantize"](x, "layer", 1e-6, None, None, *modulation, self.smooth, self.factors(rank)[0], format)

    def operands(self, quantized: tuple[Tensor, Tensor, Tensor], format: str, rank: int, bias: bool = True) -> tuple[Any, ...]:
        qx, ascales, low_rank_act = quantized
        flags = (False,) if format == "int4" else ()
        companions = (low_rank_act, self.factors(rank)[1], self.bias if bias else None)
        return (qx, ascales, *self.codes(format), *companions, *flags, torch.bfloat16)

    def product(self, quantized: tuple[Tensor, ...], format: str, rank: int, epilogue: str = "", *arguments: Any) -> Any:
        """The product, or the fused op `<product>_<epilogue>` with the epilogue's own arguments."""
        name = PRODUCTS[format] + (f"_{epilogue}" if epilogue else "")
        return OPS[name](*self.operands(quantized, format, rank), *arguments)


def on_backend(backend: str, call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    def run() -> Any:
        with use_backend(backend):
            return call(*args)

    return run


def reason_against(backend: str, op: str, *args: Any) -> str | None:
    """Why the backend would not take this call by itself; asked for by name it might emulate it, which is no speed to report."""
    return OPS[op].missing(backend) or OPS[op].rejects[backend](*args)


def formats_here(device: str) -> Iterator[str]:
    """Formats whose products this device has instructions for; one of them stands for all in a dry run."""
    yield "int8"
    if device != "cuda":
        return
    from halfbyte.layers.gpu_compute import INT4_TENSOR_CORES, NVFP4_PRODUCTS

    capability = torch.cuda.get_device_capability()
    yield "fp8"
    if capability in INT4_TENSOR_CORES:
        yield "int4"
    if capability in NVFP4_PRODUCTS:
        yield "nvfp4"


def backends_here(device: str) -> tuple[str, ...]:
    return ("cuda", "triton") if device == "cuda" else ("triton", "reference")
