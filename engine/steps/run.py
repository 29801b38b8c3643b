"""One pipeline call's own state, held in a context variable so that threads on one model never see each other's."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from .arguments import CallArguments
from .context import StepContext
from .frozen import FrozenArguments
from .state import BranchState
from .stats import RunStats
from .tracker import StepTracker

_RUNS: ContextVar[Mapping[int, Run]] = ContextVar("halfbyte_runs", default=MappingProxyType({}))
_numbers = itertools.count()


class Interrupted(RuntimeError):
    """Raised at the next denoiser call of a run that was cancelled."""


class Run:
    """The states of one pipeline call, from its first denoiser call to its end.

    scheduler: the pipeline's own, read for the number of steps. n_steps: that number, where the caller knows it.
    context: the pipeline's cache context of the call in flight. call: the call in flight, None between calls.
    """

    def __init__(self, points: int, scheduler: Any = None, n_steps: int | None = None):
        self.number = next(_numbers)
        self.points = points
        self.scheduler = scheduler
        self.n_steps = n_steps
        self.stats = RunStats()
        self.context: Any = None
        self.call: Any = None
        self.cancelled = False
        self.tracker = StepTracker()
        self.states: dict[str, BranchState] = {}
        self.frozen = FrozenArguments()
        self.trusted_epochs: set[tuple[str, int]] = set()
        self._scheduled: int | None = None

    def cancel(self) -> None:
        """Make the next denoiser call of this run raise Interrupted; safe from any thread."""
        self.cancelled = True

    def drop_states(self) -> None:
        """Forget everything remembered; the next calls compute."""
        self.states.clear()

    def observe(self, arguments: CallArguments) -> tuple[StepContext, tuple[float, ...]]:
        """Where the call stands, and every value of its timestep."""
        seen = self.tracker.observe(arguments, self.context)
        if seen.restarted:
            self.drop_states()
            self._scheduled = None
        if self._scheduled is None:
            self._scheduled = _steps_left(self.scheduler, seen.timestep)
        n_steps = getattr(self.context, "num_inference_steps", None) or self.n_steps or self._scheduled
        sigma = getattr(self.context, "sigma", None)
        context = StepContext(
            self.number, seen.step, n_steps, seen.timestep, sigma, seen.branch, arguments.shape_key, float(seen.step), seen.reason
        )
        return context, seen.timesteps

    def state(self, context: StepContext) -> tuple[BranchState, bool]:
        """The state of the call's branch, and whether it had to be dropped because shapes changed."""
        state = self.states.get(context.branch)
        changed = state is not None and state.shape_key != context.shape_key
        if state is None or changed:
            state = self.states[context.branch] = BranchState(context.shape_key, self.points)
        return state, changed


def _steps_left(scheduler: Any, timestep: float) -> int | None:
    """Denoiser steps from this timestep on; the scheduler's begin index tells when the model is given other units of time."""
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or not len(timesteps):
        return None
    values = [float(value) for value in timesteps]
    begin = values.index(timestep) if timestep in values else getattr(scheduler, "begin_index", None) or 0
    return len(values) - begin


def current_run(owner: object) -> Run | None:
    """The run this thread or task opened for `owner`, None outside any."""
    return _RUNS.get().get(id(owner))


@contextlib.contextmanager
def active(owner: object, run: Run) -> Iterator[Run]:
    """Make `run` the current one of `owner` for this thread or task; its states are dropped whatever ends it."""
    token = _RUNS.set(MappingProxyType({**_RUNS.get(), id(owner): run}))
    try:
        yield run
    finally:
        _RUNS.reset(token)
        run.drop_states()
        run.scheduler = run.context = run.call = None
