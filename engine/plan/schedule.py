"""Choose the steps to compute: the best path through a recorded trajectory for a given number of computed steps.

The cost counts the predictor's own forecast error, so a schedule is chosen for the predictor that will run on it (the idea of
path-aware planning is DPCache's, CVPR 2026; costs here are exact quadratic forms of the trajectory's Gram matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .trajectory import Trajectory


@dataclass(frozen=True)
class Schedule:
    """compute_steps: sorted step indices; cost: predicted squared error of the final latent, relative to its variation."""

    compute_steps: tuple[int, ...]
    cost: float


def choose_compute_steps(trajectory: Trajectory, count: int, damping: float = 1.0, max_gap: int | None = None) -> Schedule:
    """Pick `count` steps, the first and the last among them, that minimise the forecast error reaching the final latent.

    damping: weight of the linear term of the forecast, 0 (hold) to 1 (linear); the first skipped run, where only one computed
    step exists, always holds. Forecast errors inside one gap add up coherently (they share a cause), gaps add as squares.
    max_gap: most steps from one computed step to the next.
    Raises ValueError when `count` is not between 2 and the number of steps, or `max_gap` leaves no schedule.
    """
    steps = len(trajectory.outputs)
    if not 2 <= count <= steps:
        raise ValueError(f"count needs 2 to {steps} (the number of steps); {count} came")
    gap = max_gap or steps
    costs = _gap_costs(trajectory, damping, gap)
    best = np.full((count + 1, steps, steps), np.inf)  # best[k, i, j]: k computed steps so far, the last two are i and j
    origin = np.full((count + 1, steps, steps), -1, dtype=np.int64)
    for j in range(1, min(gap, steps - 1) + 1):
        best[2, 0, j] = costs[0, 0, j]
    for k in range(3, count + 1):
        for j in range(1, steps - 1):
            reachable = best[k - 1, :j, j]
            through = reachable[:, None] + costs[:j, j, j + 1 :]
            origin[k, j, j + 1 :] = through.argmin(0)
            best[k, j, j + 1 :] = through.min(0)
    last, before = steps - 1, int(best[count, :, steps - 1].argmin())
    cost = float(best[count, before, last])
    if not np.isfinite(cost):
        raise ValueError(f"max_gap needs at least {-(-(steps - 1) // (count - 1))} for {count} of {steps} steps; {gap} came")
    path = [last, before]
    for k in range(count, 2, -1):
        last, before = before, int(origin[k, before, last])
        path.append(before)
    return Schedule(tuple(reversed(path)), cost)


def _gap_costs(trajectory: Trajectory, damping: float, max_gap: int) -> np.ndarray:
    """costs[i, j, n]: squared error the skipped steps between computed j and n put into the final latent, i before j.

    Row i = j = 0 is the start, where no second point exists and the forecast holds.
    """
    outputs = trajectory.outputs.double().numpy()
    gram = outputs @ outputs.T / outputs.shape[1]
    weight = trajectory.influence.numpy()
    steps = len(weight)
    scale = max(float(weight @ gram @ weight), np.finfo(float).tiny)
    costs = np.full((steps, steps, steps), np.inf)
    for j in range(steps - 1):
        for i in range(j) if j else [0]:
            error = np.zeros(steps)
            for n in range(j + 1, min(steps, j + max_gap + 1)):
                costs[i, j, n] = float(error @ gram @ error) / scale
                slope = damping * (n - j) / (j - i) if j > i else 0.0
                error[n] += weight[n]
                error[j] -= weight[n] * (1 + slope)
                error[i] += weight[n] * slope
    return costs
