"""A denoiser call's arguments by name: the latents, the timestep, and everything else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..models.families import TIME_LIKE_ARGUMENTS, TIMESTEP_ARGUMENTS

# longer timesteps are per token, and neither listed nor tabulated
MAX_TIMESTEP_VALUES = 4096


@dataclass(frozen=True)
class CallArguments:
    """latents: the first argument. timestep: as passed. conditioning: all others that do not tell the time."""

    latents: Any
    timestep: Any
    conditioning: Mapping[str, Any]
    named: Mapping[str, Any]

    @property
    def shape_key(self) -> tuple:
        """Shapes, dtypes and devices of the latents."""
        latents = self.latents if isinstance(self.latents, (list, tuple)) else [self.latents]
        return tuple((tuple(item.shape), item.dtype, str(item.device)) for item in latents if isinstance(item, Tensor))


class ArgumentReader:
    """Binds calls to the signature of the denoiser's own forward; raises ValueError when that takes no timestep."""

    def __init__(self, model: nn.Module):
        self._signature = inspect.signature(type(model).forward)
        names = list(self._signature.parameters)
        self._latents = names[1]
        found = [name for name in TIMESTEP_ARGUMENTS if name in names]
        if not found:
            raise ValueError(f"model needs a forward that takes a timestep; {type(model).__name__} takes {names[1:]}")
        self._timestep = found[0]

    def read(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> CallArguments:
        named = self._signature.bind(module, *args, **kwargs).arguments
        conditioning = {
            name: value for name, value in list(named.items())[1:] if name != self._latents and name not in TIME_LIKE_ARGUMENTS
        }
        return CallArguments(named.get(self._latents), named.get(self._timestep), conditioning, named)


def timestep_values(timestep: Any) -> tuple[float, ...]:
    """The timestep as numbers, one transfer at most; of a per-token timestep only the largest."""
    if not isinstance(timestep, Tensor):
        return (float(timestep),)
    if timestep.numel() > MAX_TIMESTEP_VALUES:
        return (float(timestep.max()),)
    return tuple(float(value) for value in timestep.flatten().tolist())
