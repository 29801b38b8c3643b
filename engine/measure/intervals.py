"""Paired bootstrap intervals: how sure a measured difference or ratio is.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Numbers = Sequence[float] | Tensor


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval: low <= estimate <= high up to resampling noise."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """True when `value` lies outside the interval; False when any bound is NaN."""
        return value < self.low or value > self.high

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def paired_difference(a: Numbers, b: Numbers, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of a - b over pairs: a, b [n], pair i measured on the same seed, prompt or round.

    Raises ValueError when the two differ in length or are shorter than 2.
    """
    a, b = _pairs(a, b)
    return _bootstrap(a - b, lambda mean: mean, confidence, resamples, seed)


def paired_ratio(a: Numbers, b: Numbers, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The geometric mean of a / b over pairs: a, b [n], all > 0. Raises ValueError as above, and for values <= 0."""
    a, b = _pairs(a, b)
    if not bool((a > 0).all() and (b > 0).all()):
        raise ValueError(f"samples: a ratio needs values > 0, got a minimum of {min(float(a.min()), float(b.min()))}")
    return _bootstrap(a.log() - b.log(), torch.exp, confidence, resamples, seed)


def _pairs(a: Numbers, b: Numbers) -> tuple[Tensor, Tensor]:
    a, b = (torch.as_tensor(x, dtype=torch.float64, device="cpu").flatten() for x in (a, b))
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"samples: two rows of equal length, at least 2, are needed, got {len(a)} and {len(b)}")
    return a, b


def _bootstrap(x: Tensor, link: Callable[[Tensor], Tensor], confidence: float, resamples: int, seed: int) -> Interval:
    """link(mean(x)) with the percentile interval of its bootstrap distribution. x: float64 [n]."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: a number between 0 and 1 is needed, got {confidence}")
    generator = torch.Generator().manual_seed(seed)
    # In slices, so that 10,000 resamples of 1,000 images never hold more than a few megabytes at once.
    rows = max(1, 1_000_000 // len(x))
    means = torch.cat([
        x[torch.randint(len(x), (min(rows, resamples - start), len(x)), generator=generator)].mean(1)
        for start in range(0, resamples, rows)
    ])  # fmt: skip
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return Interval(float(link(x.mean())), float(link(low)), float(link(high)))
