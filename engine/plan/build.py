"""Write down what a conversion and a cache amount to, as a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from ..layers import low_bit_layers
from ..quantize import RECIPES, get_recipe
from ..steps import CacheConfig
from .document import Plan
from .identity import ModelIdentity


def build_plan(
    denoisers: Mapping[str, nn.Module],
    recipe: Any,
    cache: CacheConfig | None,
    num_inference_steps: int | None,
    numerics: str,
    figures: Mapping[str, float],
    calibrated: bool,
) -> Plan:
    """The plan of converted models: storage and bytes are read off the layers themselves."""
    settings = get_recipe(recipe) if recipe else None
    return Plan(
        models={name: ModelIdentity.of(model) for name, model in denoisers.items()},
        **storage_of(denoisers),
        cache=cache,
        num_inference_steps=num_inference_steps,
        numerics=numerics,
        figures=figures,
        provenance={
            "recipe": settings.to_dict() if settings and RECIPES.get(settings.name) != settings else settings and settings.name,
            "calibrated": calibrated and settings is not None and settings.uses_calibration,
            "halfbyte": version("halfbyte"),
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
        },
    )


def storage_of(denoisers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The plan's `storage` and `stored_bytes` as the models have them now; a shared down factor counts once."""
    layers = {name: low_bit_layers(model) for name, model in denoisers.items()}
    return {
        "storage": {name: {layer: module.weight.layer_format for layer, module in found.items()} for name, found in layers.items()},
        "stored_bytes": {name: sum(module.weight.stored_bytes for module in found.values()) for name, found in layers.items()},
    }
