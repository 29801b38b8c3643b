"""Find the networks of a pipeline that run once per denoising step."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from .families import TIMESTEP_ARGUMENTS

_HELPERS = ("ControlNet", "Adapter")


def find_denoisers(pipe: Any) -> dict[str, nn.Module]:
    """Attribute name -> model for every component whose forward takes a timestep, control networks and adapters apart.

    Raises ValueError when the pipeline has none.
    """
    components = getattr(pipe, "components", None) or vars(pipe)
    found: dict[str, nn.Module] = {}
    for name, module in components.items():
        if _is_denoiser(module) and not any(module is other for other in found.values()):
            found[name] = module
    if not found:
        held = sorted(f"{name} ({type(value).__name__})" for name, value in components.items())
        raise ValueError(
            f"pipe needs a component whose forward takes a timestep; {type(pipe).__name__} holds {', '.join(held) or 'nothing'}"
        )
    return found


def _is_denoiser(module: Any) -> bool:
    if not isinstance(module, nn.Module) or any(word in type(module).__name__ for word in _HELPERS):
        return False
    return any(name in TIMESTEP_ARGUMENTS for name in inspect.signature(type(module).forward).parameters)
