"""When to compute and when to forecast: frozen rules without state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Protocol

from .context import StepContext
from .registry import is_integer, is_number


class Action(Enum):
    """COMPUTE runs everything, FORECAST takes the predictor's value, PROBE runs the first block and then asks again."""

    COMPUTE = "compute"
    FORECAST = "forecast"
    PROBE = "probe"


@dataclass(frozen=True)
class Decision:
    action: Action
    reason: str


class Policy(Protocol):
    """What the engine asks of a policy; `probes` says whether it ever answers PROBE."""

    probes: bool

    def decide(self, context: StepContext, consecutive: int) -> Decision:
        """consecutive: steps forecast in a row on this branch so far."""
        ...


@dataclass(frozen=True)
class StaticSchedule:
    """Compute every `interval`-th step, or the steps listed; with keep_ends also the first and the last step.

    n_steps: the number of steps the list was made for, by default the last one listed plus one. A run of another number of
    steps gets the list re-made: as many steps in proportion, at the same relative positions.
    """

    interval: int | None = None
    compute_steps: tuple[int, ...] | None = None
    n_steps: int | None = None
    keep_ends: bool = True
    probes = False

    def __post_init__(self) -> None:
        if (self.interval is None) == (self.compute_steps is None):
            raise ValueError("StaticSchedule needs either interval or compute_steps")
        if self.interval is not None and (not is_integer(self.interval) or self.interval < 1):
            raise ValueError(f"interval needs a positive integer; {self.interval!r} came")
        if self.compute_steps is not None:
            steps = tuple(self.compute_steps)
            if not steps or not all(is_integer(step) and step >= 0 for step in steps) or list(steps) != sorted(set(steps)):
                raise ValueError(f"compute_steps needs rising step indices from 0; {steps!r} came")
            object.__setattr__(self, "compute_steps", steps)
        if self.n_steps is not None:
            if self.compute_steps is None:
                raise ValueError("n_steps needs compute_steps; an interval holds for any number of steps")
            if not is_integer(self.n_steps) or self.n_steps <= self.compute_steps[-1]:
                raise ValueError(
                    f"n_steps needs more than the last of compute_steps, {self.compute_steps[-1]}; {self.n_steps!r} came"
                )

    def __str__(self) -> str:
        if self.compute_steps is None:
            return f"computes every {self.interval} steps"
        return f"computes steps {', '.join(map(str, self.compute_steps))} of {self._planned_steps}"

    def steps_for(self, n_steps: int) -> tuple[int, ...]:
        """The steps a run of n_steps computes."""
        return _steps_for(self, n_steps)

    def decide(self, context: StepContext, consecutive: int) -> Decision:
        if self.keep_ends and context.is_first:
            return Decision(Action.COMPUTE, "first step")
        if self.keep_ends and context.is_last:
            return Decision(Action.COMPUTE, "last step")
        if context.n_steps is not None:
            planned = context.step in self.steps_for(context.n_steps)
        elif self.compute_steps is None:
            planned = context.step % self.interval == 0
        else:
            planned = context.step in self.compute_steps or context.step >= self._planned_steps
        return Decision(Action.COMPUTE if planned else Action.FORECAST, "scheduled")

    @property
    def _planned_steps(self) -> int:
        return self.n_steps or self.compute_steps[-1] + 1


@lru_cache(maxsize=256)
def _steps_for(schedule: StaticSchedule, n_steps: int) -> tuple[int, ...]:
    if schedule.compute_steps is None:
        steps = set(range(0, n_steps, schedule.interval))
    elif (planned := schedule._planned_steps) == n_steps:
        steps = set(schedule.compute_steps)
    else:
        steps = set(_stretched(schedule.compute_steps, planned, n_steps))
    if schedule.keep_ends:
        steps |= {0, n_steps - 1}
    return tuple(sorted(steps))


def _stretched(steps: tuple[int, ...], planned: int, n_steps: int) -> list[int]:
    """The list read as a curve from rank to position, read off again at the new number of ranks; rising and unique."""
    count = max(1, min(n_steps, round(len(steps) * n_steps / planned)))
    scale = (n_steps - 1) / max(planned - 1, 1)
    found: list[int] = []
    for index in range(count):
        rank = index * (len(steps) - 1) / max(count - 1, 1)
        low = min(int(rank), len(steps) - 1)
        high = min(low + 1, len(steps) - 1)
        place = round((steps[low] + (rank - low) * (steps[high] - steps[low])) * scale)
        # leave room for those before and those still to come
        found.append(min(max(place, found[-1] + 1 if found else 0), n_steps - count + index))
    return found


@dataclass(frozen=True)
class FirstBlockGate:
    """Forecast while the first block's residual stays near that of the last computed step.

    threshold: relative L1 change, mean|r - r_last| / mean|r_last|, above which the step computes. max_consecutive: forecast
    steps in a row after which one computes in any case. Source: First Block Cache, github.com/chengzeyi/ParaAttention.
    """

    threshold: float
    max_consecutive: int = 3
    keep_ends: bool = True
    probes = True

    def __post_init__(self) -> None:
        if not is_number(self.threshold) or not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold needs a finite number from 0; {self.threshold!r} came")
        if not is_integer(self.max_consecutive) or self.max_consecutive < 1:
            raise ValueError(f"max_consecutive needs a positive integer; {self.max_consecutive!r} came")

    def __str__(self) -> str:
        return f"computes when the first block changed by {self.threshold:g}, at the latest after {self.max_consecutive} steps"

    def decide(self, context: StepContext, consecutive: int) -> Decision:
        if self.keep_ends and context.is_first:
            return Decision(Action.COMPUTE, "first step")
        if self.keep_ends and context.is_last:
            return Decision(Action.COMPUTE, "last step")
        if consecutive >= self.max_consecutive:
            return Decision(Action.COMPUTE, "cap on consecutive forecasts")
        return Decision(Action.PROBE, "first block asked")

    def judge(self, change: float) -> Decision:
        """change: relative L1 change of the first block's residual; NaN computes."""
        if change < self.threshold:
            return Decision(Action.FORECAST, "first block near")
        return Decision(Action.COMPUTE, "first block changed")


POLICIES: dict[str, type] = {"static": StaticSchedule, "first_block_gate": FirstBlockGate}
