"""What can follow a matrix product in the same kernel. Each epilogue reads the float32 product, never a rounded one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import FLOATS, expect, expect_divides, expect_one_of
from .quantize_act import check_columns, quantize_act

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}
GLU_ORDERS = ("none", "value_first", "gate_first")


@dataclass(frozen=True)
class Epilogue:
    """reference(y, out_dtype, ...) of the float32 product y [..., N]; fake takes the same; check(shape of y, ...)."""

    reference: Callable
    fake: Callable
    check: Callable

    @property
    def name(self) -> str:
        return self.reference.__name__


def act(y: Tensor, out_dtype: torch.dtype, activation: str, glu: str) -> Tensor:
    """activation(y) [M, N], or value * activation(gate) [M, N/2], `glu` naming the order of the two halves of y."""
    if glu == "none":
        return ACTIVATIONS[activation](y).to(out_dtype)
    first, second = y.chunk(2, -1)
    value, gate = (first, second) if glu == "value_first" else (second, first)
    return (value * ACTIVATIONS[activation](gate)).to(out_dtype)


def fake_act(y, out_dtype, activation, glu):
    width = y.shape[-1] if glu == "none" else y.shape[-1] // 2
    return y.new_empty((*y.shape[:-1], width), dtype=out_dtype)


def check_act(shape, activation, glu):
    expect_one_of("activation", activation, tuple(ACTIVATIONS))
    expect_one_of("glu", glu, GLU_ORDERS)
    if glu != "none":
        expect_divides("glu", shape[-1], 2, "N")


def act_quantize(
    y: Tensor,
    out_dtype: torch.dtype,
    activation: str,
    glu: str,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`quantize_act` for the next layer of `act`, which is rounded to out_dtype in between."""
    hidden_states = act(y, out_dtype, activation, glu)
    return quantize_act.reference(hidden_states, smooth, proj_down, format, shift, unsigned, segments, four_over_six)


def fake_act_quantize(y, out_dtype, activation, glu, *quantize_args):
    return quantize_act.fake(fake_act(y, out_dtype, activation, glu), *quantize_args)


def check_act_quantize(shape, activation, glu, *quantize_args):
    check_act(shape, activation, glu)
    check_columns(shape[-1] if glu == "none" else shape[-1] // 2, *quantize_args)


def gate_residual(y: Tensor, out_dtype: torch.dtype, gate: Tensor | None, residual: Tensor) -> Tensor:
    """residual + gate * y. residual: shape of y; gate [B, N], each row holding for the rows of y of one batch item."""
    if gate is not None:
        y = (y.reshape(gate.shape[0], -1, y.shape[-1]) * gate.float().unsqueeze(1)).reshape(y.shape)
    return (residual.float() + y).to(out_dtype)


def fake_gate_residual(y, out_dtype, gate, residual):
    return y.new_empty(y.shape, dtype=out_dtype)


def check_gate_residual(shape, gate, residual):
    expect("residual", residual, shape, *FLOATS)
    if gate is not None:
        expect("gate", gate, (gate.shape[0], shape[-1]), *FLOATS)
        if shape[0] % gate.shape[0]:
            raise ValueError(f"gate: its {gate.shape[0]} rows must divide the {shape[0]} rows of the product")


ACT = Epilogue(act, fake_act, check_act)
ACT_QUANTIZE = Epilogue(act_quantize, fake_act_quantize, check_act_quantize)
GATE_RESIDUAL = Epilogue(gate_residual, fake_gate_residual, check_gate_residual)
