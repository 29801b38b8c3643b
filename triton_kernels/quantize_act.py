"""Smooth, shift and quantize activations, and project them onto the low-rank branch."""

from __future__ import annotations

from torch import Tensor

from .quantize_launch import quantize_rows


def quantize_act(
    x: Tensor,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    return quantize_rows(x, smooth, proj_down, format, shift, unsigned, segments, four_over_six)
