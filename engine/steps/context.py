"""Where one denoiser call stands in its run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepContext:
    """run: number of the run; step: index of the denoising step, from 0; n_steps: how many there will be, None when unknown.

    timestep: the value the model was given. sigma: noise level, when the pipeline tells it. branch: what this call computes
    within its step ("cond", "uncond", ...), None when that is ambiguous. shape_key: shapes, dtypes and devices of the latents.
    position: coordinate the predictors extrapolate along. reason: why the branch is ambiguous, else "".
    """

    run: int
    step: int
    n_steps: int | None
    timestep: float
    sigma: float | None
    branch: str | None
    shape_key: tuple
    position: float
    reason: str = ""

    @property
    def is_first(self) -> bool:
        return self.step == 0

    @property
    def is_last(self) -> bool:
        return self.n_steps is not None and self.step >= self.n_steps - 1
