"""Putting low-bit weights into modules, and finding them again."""

from __future__ import annotations

from torch import nn

from .weight import LowBitWeight


def install(module: nn.Module, weight: LowBitWeight) -> None:
    """Replace the weight of an nn.Linear or nn.Conv2d, whose class, bias and forward stay as they are.

    Raises ValueError when the module is of another class, has groups, or its weight another shape.
    """
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise ValueError(f"module: an nn.Linear or nn.Conv2d needed, got {type(module).__name__}")
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        raise ValueError(f"module: a convolution with 1 group needed, got {module.groups}")
    if module.weight.shape != weight.shape:
        raise ValueError(f"weight: shape {list(module.weight.shape)} needed, got {list(weight.shape)}")
    module.weight = nn.Parameter(weight, requires_grad=False)


def low_bit_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module for every module of the model whose weight is low-bit."""
    named = model.named_modules()
    return {name: module for name, module in named if isinstance(module._parameters.get("weight"), LowBitWeight)}
