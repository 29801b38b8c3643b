"""Smooth, shift and quantize activations, and project them onto the low-rank branch."""

from __future__ import annotations

from torch import Tensor

from .quantize_launch import QuantizeConfig, held_config, holds_rows, quantize_rows, streamed_config


def quantize_act_default(m: int, n: int, k: int, capability: tuple[int, int]) -> QuantizeConfig:
    return held_config(k)


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
    rank = 0 if proj_down is None else proj_down.shape[1]
    config = held_config(x.shape[1]) if holds_rows(x.shape[1], rank, segments) else streamed_config(x.shape[0])
    return quantize_rows(x, config, smooth, proj_down, format, shift, unsigned, segments, four_over_six)
