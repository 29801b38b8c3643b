"""A FLUX.1-shaped transformer with random weights, made on the device, and its denoising loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .sizes import Sizes
from .timing import CapturedCall

RANDOM_WEIGHTS = "random weights: they prove speed and memory, not image quality"


def build(sizes: Sizes, device: str, config: dict[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """In bfloat16, every parameter filled where it lies: no copy, on the host or beside it, ever exists."""
    from diffusers import FluxTransformer2DModel
    from diffusers.utils import logging

    # It warns of the cast that gives every parameter its one and only dtype.
    logging.set_verbosity_error()
    with torch.device("meta"):
        model = FluxTransformer2DModel(**(config or sizes.flux)).to(torch.bfloat16)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        fill(name, parameter.data, generator)
    return model.eval().requires_grad_(False)


def fill(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    """Such that activations keep their size through any number of blocks: residual branches add a little each."""
    if tensor.ndim == 2:
        tensor.normal_(0, (0.1 if "norm" in name else 1.0) * tensor.shape[1] ** -0.5, generator=generator)
    elif name.endswith("bias"):
        tensor.normal_(0, 0.02, generator=generator)
    else:
        tensor.fill_(1)


def inputs(sizes: Sizes, device: str, seed: int = 0) -> dict[str, Any]:
    """The keyword arguments of one call, but latents and timestep."""
    generator = torch.Generator(device).manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)  # noqa: E731
    side, flux = sizes.image_side, sizes.flux
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image_ids = torch.stack([torch.zeros(side, side, dtype=torch.long), rows, columns], -1).reshape(-1, 3)
    return {
        "encoder_hidden_states": normal(1, sizes.text_tokens, flux["joint_attention_dim"]),
        "pooled_projections": normal(1, flux["pooled_projection_dim"]),
        "guidance": torch.full((1,), 3.5, device=device, dtype=torch.float32),
        "img_ids": image_ids.to(device, torch.bfloat16),
        "txt_ids": torch.zeros(sizes.text_tokens, 3, device=device, dtype=torch.bfloat16),
        "return_dict": False,
    }


def first_latents(sizes: Sizes, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, sizes.image_side**2, sizes.flux["in_channels"])
    return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)


class Denoising:
    """Every step of one image, latents to latents, the scheduler's own arithmetic included; neither text encoder nor decoder.

    engine: caches steps of the model while this runs. eager: compiled blocks run as they were before.
    """

    def __init__(
        self, model: Callable[..., tuple[Tensor]], sizes: Sizes, device: str, engine: Any = None, eager: bool = False
    ) -> None:
        self.model, self.device, self.engine, self.eager = model, device, engine, eager
        self.arguments, self.latents = inputs(sizes, device), first_latents(sizes, device)
        self.counts: dict[str, int] = {}

    def __call__(self, steps: int) -> Tensor:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if self.eager else nullcontext():
            return self._cached(steps) if self.engine else self._denoise(steps)

    def _cached(self, steps: int) -> Tensor:
        """The engine's hooks are on for this run alone: other ways run the same model."""
        self.engine.attach()
        try:
            with self.engine.run(n_steps=steps) as run:
                latents = self._denoise(steps)
                self.counts = {"computed": run.stats.computed, "forecast": run.stats.forecast + run.stats.reused}
        finally:
            self.engine.detach()
        return latents

    def _denoise(self, steps: int) -> Tensor:
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler, latents = FlowMatchEulerDiscreteScheduler(), self.latents
        scheduler.set_timesteps(steps, device=self.device)
        for timestep in scheduler.timesteps:
            fraction = (timestep / 1000).reshape(1).to(latents.dtype)
            velocity = self.model(hidden_states=latents, timestep=fraction, **self.arguments)[0]
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents


class GraphedForward:
    """The model's forward as a CUDA graph for one image size: latents and timestep are copied in, the rest is as captured."""

    def __init__(self, forward: Callable[..., tuple[Tensor]], hidden_states: Tensor, arguments: dict[str, Any]) -> None:
        self.hidden_states = hidden_states.clone()
        self.timestep = torch.ones(1, device=hidden_states.device, dtype=hidden_states.dtype)
        with torch.no_grad():
            self.graph = CapturedCall(lambda: forward(hidden_states=self.hidden_states, timestep=self.timestep, **arguments))

    def __call__(self, hidden_states: Tensor, timestep: Tensor, **arguments: Any) -> tuple[Tensor]:
        self.hidden_states.copy_(hidden_states)
        self.timestep.copy_(timestep)
        return (self.graph()[0].clone(),)
