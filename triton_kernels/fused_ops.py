"""The fused ops of a product: its arguments, then those of the epilogue."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .epilogue import Epilogue
from .one_launch import QuantizeArgs, quantizes_in_tile
from .quantize_act import quantize_act


def fused_ops(product: Callable[..., Tensor], count: int) -> tuple[Callable, Callable, Callable]:
    """`<product>_act`, `_act_quantize` and `_gate_residual`; the product takes `count` arguments and an Epilogue."""

    def act(*args) -> Tensor:
        return product(*args[:count], Epilogue(*args[count:]))

    def act_quantize(*args) -> tuple[Tensor, Tensor, Tensor]:
        qx, _, qweight, *_, out_dtype = args[:count]
        activation, glu, *quantize_args = args[count:]
        next = QuantizeArgs(*quantize_args)
        if qx.shape[0] and quantizes_in_tile(qweight.shape[0], out_dtype, glu, next):
            return product(*args[:count], Epilogue(activation, glu, next=next))
        return quantize_act(product(*args[:count], Epilogue(activation, glu)), *quantize_args)

    def gate_residual(*args) -> Tensor:
        gate, residual = args[count:]
        return product(*args[:count], Epilogue(gate=gate, residual=residual))

    return act, act_quantize, gate_residual
