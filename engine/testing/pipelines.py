"""The fourteen tiny pipelines by name, built offline in under a second each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import image_pipelines, video_pipelines
from .image_pipelines import Built

_IMAGES = ("dit", "flux", "flux_embeds_only", "flux2_embeds_only", "sdxl", "sd3", "pixart", "sana", "qwenimage", "zimage")
_VIDEOS = ("wan", "ltx", "cogvideox", "hunyuanvideo")

TINY_PIPELINES: dict[str, Callable[[], Built]] = {
    **{name: getattr(image_pipelines, name) for name in _IMAGES},
    **{name: getattr(video_pipelines, name) for name in _VIDEOS},
}


def tiny_pipeline(name: str, seed: int = 0) -> Built:
    """Build one, its weights drawn from `seed`; its progress bar is off."""
    torch.manual_seed(seed)
    pipe, call = TINY_PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def output_of(pipe: Any, call: dict[str, Any], seed: int = 0, **overrides: Any) -> torch.Tensor:
    """The pipeline's images or frames at one seed, as a float tensor."""
    result = pipe(**{**call, **overrides, "generator": torch.Generator().manual_seed(seed)})
    return torch.as_tensor(result[0])
