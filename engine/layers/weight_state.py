"""What a low-bit weight shares with its aliases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import LayerFormat
from .prepared import Prepared
from .side_branch import SideTerm
from .skeleton import take_apart


@dataclass
class WeightState:
    """All that a weight shares with its aliases, such as `weight.data`, so that what happens to one happens to the other."""

    storage: dict[str, Tensor]
    layer_format: LayerFormat
    owns_down: bool
    side: tuple[SideTerm, ...]
    numerics: str
    memory: str = "fast"
    prepared: Prepared | None = None

    def set_prepared(self, prepared: Prepared | None) -> None:
        self.prepared, self.prepared_tensors = prepared, []
        self.skeleton = take_apart(prepared, self.prepared_tensors)

    def set_side(self, side: tuple[SideTerm, ...]) -> None:
        self.side = side
        self.set_prepared(None)
        # Joined here because a tracer that flattens the weight allows no operation on it.
        low_rank, dense = [term for term in side if term.down is not None], [term.up for term in side if term.down is None]
        self.side_up = torch.cat([term.up for term in low_rank], dim=1) if low_rank else None
        self.side_down = torch.cat([term.down for term in low_rank]) if low_rank else None
        self.side_dense = sum(dense[1:], dense[0]) if dense else None

    def __post_init__(self) -> None:
        prepared = self.prepared
        self.set_side(self.side)
        self.set_prepared(prepared)
