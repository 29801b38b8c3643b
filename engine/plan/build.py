"""Write down what a conversion and a cache amount to, as a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from ..layers import low_bit_layers
from ..quantize import get_recipe
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
    layers = {name: low_bit_layers(model) for name, model in denoisers.items()}
    return Plan(
        models={name: ModelIdentity.of(model) for name, model in denoisers.items()},
        storage={name: {layer: module.weight.layer_format for layer, module in found.items()} for name, found in layers.items()},
        stored_bytes={name: stored_bytes(found) for name, found in layers.items()},
        cache=cache,
        num_inference_steps=num_inference_steps,
        numerics=numerics,
        figures=figures,
        provenance={
            "recipe": get_recipe(recipe).name if recipe else None,
            "calibrated": calibrated and bool(recipe) and get_recipe(recipe).uses_calibration,
            "halfbyte": version("halfbyte"),
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
        },
    )


def stored_bytes(layers: Mapping[str, nn.Module]) -> int:
    """Bytes the quantized layers store, a shared down factor once."""
    return sum(module.weight.stored_bytes for module in layers.values())
