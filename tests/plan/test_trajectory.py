"""What is recorded is what the scheduler was fed, and influence is the true derivative of the final latent."""

import diffusers
import pytest
import torch

from halfbyte.plan import record_trajectory


class LoopPipeline:
    """The denoising loop of every pipeline, around a function."""

    def __init__(self, scheduler, model):
        self.scheduler, self.model = scheduler, model

    def __call__(self, num_inference_steps, bump=None):
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        for index, timestep in enumerate(self.scheduler.timesteps):
            output = self.model(index, timestep) + (1e-2 if index == bump else 0.0)
            latents = self.scheduler.step(output, timestep, latents).prev_sample
        return latents


def wave(index, timestep):
    return torch.sin(torch.arange(128.0).reshape(2, 4, 4, 4) * 0.1 + index * 0.3)


SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "ddim-v": lambda: diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing"),
    "dpm++2m": lambda: diffusers.DPMSolverMultistepScheduler(),
    "euler-flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [3, 7])
def test_influence_is_the_derivative_of_the_final_latent(name, steps):
    pipe = LoopPipeline(SCHEDULERS[name](), wave)
    recorded = record_trajectory(pipe, {"num_inference_steps": steps}, LoopPipeline.__call__)
    base = pipe(steps)
    measured = [float((pipe(steps, bump=index) - base).double().mean()) / 1e-2 for index in range(steps)]
    assert recorded.outputs.shape == (steps, 128)
    assert recorded.influence.tolist() == pytest.approx(measured, rel=2e-3, abs=2e-4)


def test_recording_leaves_the_pipeline_alone():
    pipe = LoopPipeline(SCHEDULERS["ddim"](), wave)
    scheduler, before = pipe.scheduler, pipe(5)
    record_trajectory(pipe, {"num_inference_steps": 5}, LoopPipeline.__call__)
    assert pipe.scheduler is scheduler
    assert "step" not in vars(scheduler)
    assert torch.equal(before, pipe(5))


def test_a_pipeline_without_scheduler_steps_is_refused():
    pipe = LoopPipeline(SCHEDULERS["ddim"](), wave)
    with pytest.raises(ValueError, match="never called scheduler.step"):
        record_trajectory(pipe, {}, lambda session: None)


def test_non_finite_outputs_are_refused():
    pipe = LoopPipeline(SCHEDULERS["ddim"](), lambda index, timestep: wave(index, timestep) * float("nan"))
    with pytest.raises(ValueError, match="finite"):
        record_trajectory(pipe, {"num_inference_steps": 3}, LoopPipeline.__call__)
