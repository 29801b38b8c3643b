"""The fused ops: a product's arguments, then those of its epilogue."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from torch import Tensor

from .gemm import Epilogue
from .quantize import Quantization


def with_act(product: Callable, count: int) -> Callable:
    """`<product>_act`; count: how many arguments the product takes."""

    def run(kernels: ModuleType, *args) -> Tensor:
        activation, glu = args[count:]
        return product(kernels, *args[:count], Epilogue(activation, glu))

    return run


def with_act_rejects(product_rejects: Callable, count: int) -> Callable:
    def rejects(*args) -> str | None:
        activation, glu = args[count:]
        return product_rejects(*args[:count], Epilogue(activation, glu))

    return rejects


def with_gate_residual(product: Callable, count: int) -> Callable:
    def run(kernels: ModuleType, *args) -> Tensor:
        gate, residual = args[count:]
        return product(kernels, *args[:count], Epilogue(gate=gate, residual=residual))

    return run


def with_gate_residual_rejects(product_rejects: Callable, count: int) -> Callable:
    def rejects(*args) -> str | None:
        gate, residual = args[count:]
        return product_rejects(*args[:count], Epilogue(gate=gate, residual=residual))

    return rejects


def with_act_quantize(product: Callable, count: int) -> Callable:
    def run(kernels: ModuleType, *args) -> tuple[Tensor, Tensor, Tensor]:
        activation, glu, *quantize_args = args[count:]
        return product(kernels, *args[:count], Epilogue(activation, glu, next=Quantization(*quantize_args)))

    return run


def with_act_quantize_rejects(product_rejects: Callable, count: int) -> Callable:
    def rejects(*args) -> str | None:
        activation, glu, *quantize_args = args[count:]
        return product_rejects(*args[:count], Epilogue(activation, glu, next=Quantization(*quantize_args)))

    return rejects
