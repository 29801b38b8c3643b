"""Which step and which branch a denoiser call belongs to, from what the pipeline shows: timesteps, latents, cache contexts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .arguments import CallArguments, timestep_values
from .same import Remembered

MAX_BRANCHES = 8


@dataclass(frozen=True)
class Observation:
    """timesteps: every value of the timestep argument. branch: None when ambiguous, then `reason` says why.

    restarted: the timesteps turned back, so this call opens a new trajectory.
    """

    step: int
    timesteps: tuple[float, ...]
    branch: str | None
    reason: str = ""
    restarted: bool = False

    @property
    def timestep(self) -> float:
        """The largest value: per-token timesteps hold zeros for tokens that are already clean."""
        return max(self.timesteps)


class StepTracker:
    """Counts steps by observed changes, whichever way timesteps run, so repeated ones (Heun, PNDM) are steps of their own.

    A call starts a new step when its timestep differs from the last, or when it is the same and the step is complete: its named
    branch ran already, or, unnamed, its latents are other ones. Two calls of the very first step that look like that cannot be
    told from a pipeline that splits its batch, and make the run ambiguous: no scheduler repeats its first timestep.
    Unnamed calls are told apart by what conditions them, not by their order, so guidance that starts late mixes nothing up.
    """

    def __init__(self) -> None:
        self._known: list[Remembered] = []
        self._passed: Remembered | None = None
        self._values: tuple[float, ...] = ()
        self._begin()

    def _begin(self) -> None:
        self._step = -1
        self._direction = 0
        self._latents: Remembered | None = None
        self._seen: list[str] = []
        self._ambiguous = ""

    def observe(self, arguments: CallArguments, context: Any = None) -> Observation:
        """context: the pipeline's CacheContext, or its name alone, or None."""
        name = getattr(context, "name", context)
        told = getattr(context, "step_index", None)
        before, self._values = self._values, self._read(arguments.timestep)
        restarted = self._turned_back(before, told)
        if restarted:
            self._begin()
        branch = name if name is not None else self._conditioning_name(arguments)
        if self._is_new_step(before, branch, name is not None, told, arguments):
            if self._step == 0 and told is None and self._values == before:
                self._ambiguous = "the first timestep came with several latents"
            self._step = self._step + 1 if told is None else int(told)
            self._seen = []
            self._latents = Remembered(arguments.latents)
        occurrence = self._seen.count(branch)
        self._seen.append(branch)
        if self._ambiguous:
            return Observation(self._step, self._values, None, self._ambiguous, restarted)
        return Observation(self._step, self._values, f"{branch}, again {occurrence}" if occurrence else branch, "", restarted)

    def _is_new_step(self, before: tuple[float, ...], branch: str, is_named: bool, told: Any, arguments: CallArguments) -> bool:
        if self._latents is None:
            return True
        if told is not None:
            return told != self._step
        if self._values != before:
            return True
        return branch in self._seen if is_named else not self._latents.equals(arguments.latents)

    def _turned_back(self, before: tuple[float, ...], told: Any) -> bool:
        """A second image inside one run, or a sampler that jumps back: what was remembered belongs to another trajectory."""
        if self._latents is None:
            return False
        if told is not None:
            return told < self._step
        change = max(self._values) - max(before)
        direction = (change > 0) - (change < 0)
        if direction and self._direction and direction != self._direction:
            return True
        self._direction = direction or self._direction
        return False

    def _read(self, timestep: Any) -> tuple[float, ...]:
        # the branches of a step mostly pass one tensor object, and reading a value waits for the device
        if self._passed is not None and self._passed.value is timestep and self._passed.equals(timestep):
            return self._values
        self._passed = Remembered(timestep)
        return timestep_values(timestep)

    def _conditioning_name(self, arguments: CallArguments) -> str:
        for index, known in enumerate(self._known):
            if known.equals(arguments.conditioning):
                return f"call {index}"
        if len(self._known) == MAX_BRANCHES:
            self._ambiguous = self._ambiguous or "what conditions the calls changes from step to step"
            return "unknown"
        self._known.append(Remembered(arguments.conditioning))
        return f"call {len(self._known) - 1}"
