"""Turn "compute this fraction of the steps" into a cache: the steps and the predictor that a recorded run says are best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..steps import CacheConfig, DampedLinear, Hold, Linear, StaticSchedule
from .schedule import choose_compute_steps
from .trajectory import Trajectory, record_trajectory

PREDICTORS = ((0.0, Hold()), (0.5, DampedLinear(0.5)), (1.0, Linear()))
MAX_GAP = 8
DEFAULT_STEPS = 50


def search_cache(
    pipe: Any, calls: Sequence[Mapping[str, Any]], fraction: float, run: Callable[..., Any] | None = None
) -> tuple[CacheConfig, int, dict[str, float]]:
    """The cache that computes `fraction` of the steps of `calls`, the number of steps it was chosen for, and predicted figures.

    Without calls, evenly spaced steps of a 50-step run with the half-damped forecast, the safest at any bit width
    (docs/steps.md). Raises ValueError when the calls disagree on the number of steps.
    """
    if not calls:
        count = max(2, round(fraction * DEFAULT_STEPS))
        steps = tuple(round(index * (DEFAULT_STEPS - 1) / (count - 1)) for index in range(count))
        return CacheConfig(policy=StaticSchedule(compute_steps=steps, n_steps=DEFAULT_STEPS), predictor=DampedLinear(0.5)), DEFAULT_STEPS, {}
    trajectory = _joined([record_trajectory(pipe, call, run) for call in calls])
    steps = len(trajectory.outputs)
    count = min(steps, max(2, round(fraction * steps)))
    max_gap = max(MAX_GAP, 2 * steps // count)
    found = [(choose_compute_steps(trajectory, count, damping, max_gap), predictor) for damping, predictor in PREDICTORS]
    schedule, predictor = min(found, key=lambda pair: pair[0].cost)
    config = CacheConfig(policy=StaticSchedule(compute_steps=schedule.compute_steps, n_steps=steps), predictor=predictor, site="output")
    return config, steps, {"predicted_relative_error": schedule.cost**0.5, "predicted_compute_fraction": count / steps}


def _joined(trajectories: list[Trajectory]) -> Trajectory:
    lengths = {len(trajectory.outputs) for trajectory in trajectories}
    if len(lengths) > 1:
        raise ValueError(f"calibration needs calls of one number of steps to plan a cache; {sorted(lengths)} came")
    return Trajectory(torch.cat([trajectory.outputs for trajectory in trajectories], 1), trajectories[0].influence)
