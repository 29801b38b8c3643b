"""What one branch of one run remembers between steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

Value = tuple[Tensor | None, ...]


@dataclass
class BranchState:
    """Created at a branch's first call, dropped when its shapes change or the run ends.

    histories: per site name, the last computed values with their positions, oldest first. layout: how the denoiser wrapped its
    output, for the output site. problem: why nothing can be remembered, else "". probe: the first block's value at the last
    computed step. consecutive: forecasts in a row.
    """

    shape_key: tuple
    points: int
    histories: dict[str, deque[tuple[float, Value]]] = field(default_factory=dict)
    layout: object = None
    problem: str = ""
    probe: Tensor | None = None
    consecutive: int = 0

    def push(self, site: str, position: float, value: Value) -> None:
        """Remember a computed value; values of another shape or dtype than those before start the history anew."""
        history = self.histories.setdefault(site, deque(maxlen=self.points))
        if history and [_layout(tensor) for tensor in history[-1][1]] != [_layout(tensor) for tensor in value]:
            history.clear()
        history.append((position, value))


def _layout(tensor: Tensor | None) -> tuple | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)
