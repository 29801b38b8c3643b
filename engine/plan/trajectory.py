"""Record what a pipeline's scheduler is fed, step by step, and how strongly each step's value reaches the final latent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """Guided model outputs of one float run.

    outputs: float32 [T, F], one row per scheduler step, all images and channels flattened.
    influence: float64 [T], the change of the final latent per unit change of each output, the others held.
    """

    outputs: Tensor
    influence: Tensor

    def __post_init__(self) -> None:
        if len(self.outputs) != len(self.influence):
            raise ValueError(f"influence needs one value per step: {len(self.outputs)} steps, {len(self.influence)} values came")
        if not torch.isfinite(self.outputs).all():
            raise ValueError("outputs needs finite values; the recorded run produced NaN or infinity")


def record_trajectory(pipe: Any, call: Mapping[str, Any], run: Callable[..., Any] | None = None) -> Trajectory:
    """Run the pipeline once and keep every model output that reaches its scheduler, after guidance.

    The pipeline object is left as it was: the run uses a shallow copy that holds its own scheduler.
    Raises ValueError when the pipeline never calls `scheduler.step`.
    """
    session = copy.copy(pipe)
    scheduler = session.__dict__["scheduler"] = copy.deepcopy(pipe.scheduler)
    calls: list[tuple[Tensor, Any, Tensor]] = []
    stock_step = scheduler.step

    def recording_step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append((model_output.detach().float().cpu(), timestep, sample.detach().float().cpu()))
        return stock_step(model_output, timestep, sample, *args, **kwargs)

    scheduler.step = recording_step
    (run or type(pipe).__call__)(session, **call)
    if not calls:
        raise ValueError(f"{type(pipe).__name__} never called scheduler.step; a schedule needs a pipeline that does")
    outputs = torch.stack([output.flatten() for output, _, _ in calls])
    return Trajectory(outputs, _influence(pipe.scheduler, calls))


def _influence(scheduler: Any, calls: list[tuple[Tensor, Any, Tensor]]) -> Tensor:
    """Schedulers are linear in the model output, so one perturbed replay per step measures the weight of that step exactly.

    The replay runs on a handful of values: weights depend on the step, not on the element.
    """
    steps = len(calls)
    outputs = [output.flatten()[:8].double().reshape(1, -1) for output, _, _ in calls]
    start = calls[0][2].flatten()[:8].double().reshape(1, -1)
    timesteps = [timestep for _, timestep, _ in calls]

    def final(perturbed: int | None) -> Tensor:
        replay = copy.deepcopy(scheduler)
        _restore_timesteps(replay, timesteps)
        sample = start
        generator = torch.Generator().manual_seed(0)
        takes_generator = "generator" in replay.step.__code__.co_varnames
        for index, timestep in enumerate(timesteps):
            output = outputs[index] + (1.0 if index == perturbed else 0.0)
            extra = {"generator": generator} if takes_generator else {}
            sample = replay.step(output, timestep, sample, **extra).prev_sample.double()
        return sample

    base = final(None)
    return torch.tensor([float((final(index) - base).mean()) for index in range(steps)], dtype=torch.float64)


def _restore_timesteps(scheduler: Any, timesteps: list[Any]) -> None:
    """`set_timesteps` with the recorded number of steps; schedulers that repeat timesteps expose fewer distinct ones."""
    distinct = list(dict.fromkeys(float(t) for t in timesteps))
    scheduler.set_timesteps(len(distinct))
