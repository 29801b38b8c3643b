"""Seeded random operands of the ops, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import quantize_weight
from ..ops import quantize_act


class Inputs:
    """Seeded random inputs on one device in one 16-bit or 32-bit dtype."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> None:
        self.dtype, self.device = dtype, device
        # Large shapes on a GPU take seconds each where a CPU draws them.
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self.generator, device=self.device) * scale).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=self.generator, device=self.device) + 0.5).to(self.dtype)

    def act(self, m: int, k: int, format: str, unsigned: bool = False) -> tuple[Tensor, Tensor]:
        x = self.normal(m, k).abs() if unsigned else self.normal(m, k)
        return quantize_act.reference(x, None, None, format, unsigned=unsigned)[:2]

    def weight(self, n: int, k: int, format: str) -> tuple[Tensor, ...]:
        return tuple(quantize_weight(self.normal(n, k, scale=k**-0.5), format, self.dtype).values())

    def companions(self, m: int, n: int, rank: int, bias: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """low_rank_act, proj_up, bias."""
        return self.normal(m, rank), self.normal(n, rank, scale=0.1), self.normal(n) if bias else None
