"""Shift: the input of a layer after GELU is never below -0.171875, so shifted by that it is quantized without a sign bit.

Source: SVDQuant (arXiv 2411.05007), `shift_activations` of its reference implementation. The constant covers the minimum of GELU
in its erf form (-0.16997), its tanh form (-0.17004) and x*sigmoid(1.702x) (-0.16364), and is exact in float16 and bfloat16.
"""

from __future__ import annotations

GELU_SHIFT = 0.171875


def act_shift(role: str, activation: str | None) -> float:
    """What is added to a layer's input before it is quantized: GELU_SHIFT after a GELU when activations are int4, else 0."""
    return GELU_SHIFT if role == "ff_down_gelu" and activation == "int4" else 0.0
