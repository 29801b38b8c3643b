"""What value a skipped step takes: pure functions of the values computed so far.

Divided differences in Newton's form, so that a value that does not change is returned exactly, at any spacing of the steps.
Arithmetic in float32 (float64 stays), result in the values' own dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .registry import is_number

History = Sequence[tuple[float, Tensor]]


class Predictor(Protocol):
    """points: how many computed values it wants; with fewer it falls back to a lower order."""

    points: int

    def predict(self, history: History, position: float) -> Tensor:
        """history: (position, tensor) pairs, oldest first, at least one; raises nothing on coincident positions."""
        ...


@dataclass(frozen=True)
class Hold:
    """The last computed value."""

    points = 1

    def predict(self, history: History, position: float) -> Tensor:
        return history[-1][1]


@dataclass(frozen=True)
class DampedLinear:
    """A line through the last two values, its slope times `damping`: 0 holds, 1 is the line itself."""

    damping: float = 0.5
    points = 2

    def __post_init__(self) -> None:
        if not is_number(self.damping) or not 0 <= self.damping <= 1:
            raise ValueError(f"damping needs a number from 0 to 1; {self.damping!r} came")

    def predict(self, history: History, position: float) -> Tensor:
        return _newton(history[-2:], position, self.damping)


@dataclass(frozen=True)
class Linear:
    """The line through the last two values."""

    points = 2

    def predict(self, history: History, position: float) -> Tensor:
        return _newton(history[-2:], position, 1.0)


@dataclass(frozen=True)
class Quadratic:
    """The parabola through the last three values."""

    points = 3

    def predict(self, history: History, position: float) -> Tensor:
        return _newton(history[-3:], position, 1.0)


PREDICTORS: dict[str, type] = {"hold": Hold, "damped_linear": DampedLinear, "linear": Linear, "quadratic": Quadratic}


def _newton(history: History, position: float, damping: float) -> Tensor:
    """Newton's interpolation polynomial through the history, every term after the constant times `damping`."""
    newest_first = list(reversed(history))
    while len({place for place, _ in newest_first}) < len(newest_first):
        newest_first.pop()
    value = newest_first[0][1]
    if len(newest_first) == 1 or damping == 0:
        return value
    places = [place for place, _ in newest_first]
    dtype = torch.promote_types(value.dtype, torch.float32)
    forecast, *_ = differences = [tensor.to(dtype) for _, tensor in newest_first]
    step = damping
    for order in range(1, len(places)):
        spans = [places[index] - places[index + order] for index in range(len(places) - order)]
        differences = [differences[index] - differences[index + 1] for index in range(len(spans))]
        step *= position - places[order - 1]
        forecast = torch.add(forecast, differences[0], alpha=step / spans[0])
        if order < len(places) - 1:
            differences = [difference / span for difference, span in zip(differences, spans)]
    return forecast.to(value.dtype)
