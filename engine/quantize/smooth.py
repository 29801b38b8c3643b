"""Smoothing: divide the input's channels by a factor and multiply the weight's columns by it, chosen by grid search.

Source: SVDQuant (arXiv 2411.05007): factor = act_span^a / weight_span^b over 39 pairs (a, b), scored with input and weight
quantized and the low-rank branch in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 20
# Channels that are (nearly) silent in the calibration data must not get a factor that explodes on other data.
SMALLEST_SPAN = 1e-4
# nvfp4 activations have no outer scale: the factor places their largest block scale at 64 of the 448 that e4m3 holds.
NVFP4_ACT_PEAK = 6.0 * 64.0


def candidates() -> list[tuple[float, float]]:
    """The exponent pairs (a, b): none, activation span alone, and both with a + b = 1."""
    fractions = [step / STEPS for step in range(1, STEPS)]
    return [(0.0, 0.0), *((a, 0.0) for a in fractions), *((a, 1 - a) for a in fractions)]


def span(matrix: Tensor, channels: int) -> Tensor:
    """Largest magnitude per input channel. matrix: [rows, taps*channels] -> float32 [channels]."""
    return matrix.abs().amax(0).float().unflatten(0, (-1, channels)).amax(0)


def smooth_factor(
    act_span: Tensor, weight_span: Tensor, a: float, b: float, activation: str | None, dtype: torch.dtype
) -> Tensor:
    """act_span^a / weight_span^b, scaled to a geometric mean of 1, or to NVFP4_ACT_PEAK, and rounded to the stored dtype.

    act_span, weight_span: float32 [C]. Returns float32 [C] whose values are exact in dtype.
    """
    act, weight = (values.clamp(min=max(float(values.max()) * SMALLEST_SPAN, 1e-12)) for values in (act_span, weight_span))
    factor = act**a / weight**b
    scale = (act / factor).amax() / NVFP4_ACT_PEAK if activation == "nvfp4" else factor.log().mean().neg().exp()
    limits = torch.finfo(dtype)
    return (factor * scale).clamp(limits.tiny, limits.max).to(dtype).float()


def search(make: Callable[[float, float], Tensor], score: Callable[[Tensor], float]) -> tuple[Tensor, tuple[float, float]]:
    """The factor of the pair with the lowest score, and that pair; the first of equals wins.

    make: (a, b) -> factor [C]; score: factor -> output error, which may not be NaN for every pair.
    """
    best, best_error, best_pair = make(0.0, 0.0), float("inf"), (0.0, 0.0)
    for pair in candidates():
        factor = make(*pair)
        error = score(factor)
        if error < best_error:
            best, best_error, best_pair = factor, error, pair
    return best, best_pair
