"""One denoiser call in flight: what was decided for it, what its sites were given, what they take in place of computing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .context import StepContext
from .policy import Action, Decision
from .predictor import Predictor
from .site import Site
from .state import BranchState, Value
from .stats import CallRecord


class Call:
    """state: None when nothing of this call is to be remembered. table_key: what timestep-only layers depend on, or None."""

    def __init__(
        self, context: StepContext, state: BranchState | None, decision: Decision, predictor: Predictor, sites: tuple[Site, ...]
    ):
        self.context, self.state, self.decision = context, state, decision
        self.predictor, self.sites = predictor, sites
        self.table_key: Any = None
        self._forecasts: dict[str, Value] = {}
        self._entered: dict[str, Value] = {}
        if state is None or decision.action is Action.COMPUTE:
            return
        if problem := self._history_problem():
            self.compute(problem)
        elif decision.action is Action.FORECAST:
            self.forecast(decision)

    def _history_problem(self) -> str:
        if any(not self.state.histories.get(site.name) for site in self.sites):
            return self.state.problem or "no history"
        return "no history" if self.decision.action is Action.PROBE and self.state.probe is None else ""

    def compute(self, reason: str) -> None:
        """Let every site that has not been skipped yet compute."""
        self.decision = Decision(Action.COMPUTE, reason)
        self._forecasts.clear()

    def forecast(self, decision: Decision) -> None:
        """Predict every site's value; a value that is not finite makes the call compute and forgets the histories."""
        self.decision = decision
        for site in self.sites:
            self._forecasts[site.name] = self._predict(site)
        tensors = [tensor for value in self._forecasts.values() for tensor in value if tensor is not None]
        # one sum over all sites, so that a device is waited for once
        sums = [tensor.sum(dtype=torch.float32).to(tensors[0].device) for tensor in tensors]
        if not torch.isfinite(torch.stack(sums).sum()):
            self.compute("non-finite forecast")
            self.state.histories.clear()

    def _predict(self, site: Site) -> Value:
        history = self.state.histories[site.name]
        streams = zip(*(value for _, value in history))
        places = [place for place, _ in history]
        return tuple(
            None if tensors[-1] is None else self.predictor.predict(list(zip(places, tensors)), self.context.position)
            for tensors in streams
        )

    def enter(self, site: Site, given: Value) -> None:
        """Note what a stack site was given; a forecast of another shape or dtype makes the call compute from here on."""
        if self.state is None:
            return
        self._entered[site.name] = given
        forecast = self._forecasts.get(site.name)
        if forecast is not None and not all(_fits(a, b) for a, b in zip(given, forecast)):
            self.compute("shape changed")

    def skips(self, site: Site) -> bool:
        """Whether the site stays idle; a stack whose first block did not run has nothing to add its forecast to."""
        return site.name in self._forecasts and (site.kind != "stack" or site.name in self._entered)

    def value(self, site: Site) -> Value:
        """What a skipped site hands on, for stacks with what the site was given added."""
        forecast = self._forecasts[site.name]
        if site.kind != "stack":
            return tuple(tensor.clone() for tensor in forecast)
        return tuple(None if change is None else start + change for start, change in zip(self._entered[site.name], forecast))

    def record(self, site: Site, returned: Any) -> None:
        """Remember what a site computed; a form that the site cannot forecast is noted as the reason to go on computing."""
        if self.state is None:
            return
        if site.kind == "stack":
            if (given := self._entered.pop(site.name, None)) is None:
                return
            outputs = returned if len(site.streams.names) > 1 and isinstance(returned, tuple) else (returned,)
            if len(outputs) != len(given) or not all(out is None or _fits(start, out) for start, out in zip(given, outputs)):
                self.state.problem = f"{site.name} returned streams of an unknown form"
                return
            value = tuple(None if out is None else out - start for start, out in zip(given, outputs))
        elif isinstance(returned, Tensor):
            # later modules may write into what they are handed
            value = (returned.clone(),)
        else:
            self.state.problem = f"{site.name} returned {type(returned).__name__} where one tensor is needed"
            return
        self.state.push(site.name, self.context.position, value)

    def close(self) -> CallRecord:
        """Settle the count of forecasts in a row, and say what was done."""
        skipped = self.decision.action is Action.FORECAST
        if self.state is not None:
            self.state.consecutive = self.state.consecutive + 1 if skipped else 0
        action = "computed"
        if skipped:
            known = min((len(self.state.histories[site.name]) for site in self.sites), default=1)
            action = "forecast" if min(self.predictor.points, known) > 1 else "reused"
        return CallRecord(self.context.step, self.context.branch, self.context.timestep, action, self.decision.reason)


def _fits(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether `b` can be added to `a` unchanged in form; an absent change fits anything."""
    if b is None:
        return True
    return isinstance(a, Tensor) and isinstance(b, Tensor) and (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
