"""The hooks on timestep-only layers, and the key their outputs are a function of."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ..models.families import TIME_ONLY
from .arguments import MAX_TIMESTEP_VALUES, CallArguments
from .hook_base import EngineHook
from .run import Run, current_run
from .same import version_of


class TableHook(EngineHook):
    """On one timestep-only layer; computes while training, with gradients, under autocast or outside a run."""

    def __init__(self, owner: Any, module: nn.Module, name: str):
        super().__init__(owner)
        self.name = name
        self.leaves = [leaf for leaf in module.modules() if isinstance(leaf, (nn.Linear, nn.Embedding))]

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = current_run(self.owner)
        call = run.call if run is not None else None
        if call is None or call.table_key is None or module.training:
            return self.forward(*args, **kwargs)
        stamp = tuple((id(leaf.weight), version_of(leaf.weight)) for leaf in self.leaves)
        return self.owner.table.value(run, self.name, (call.table_key, stamp), lambda: self.forward(*args, **kwargs))


def tabulated_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every timestep-only layer of a known family, none inside compiled blocks: a hook breaks a graph."""
    facts = TIME_ONLY.get(type(model).__name__)
    if facts is None or any(getattr(model.config, name, None) is not None for name in facts.forbidden):
        return
    compiled = [
        name + "." for name, module in model.named_modules() if name and hasattr(module.forward, "_torchdynamo_orig_callable")
    ]
    for name, module in model.named_modules():
        if any(fnmatchcase(name, path) for path in facts.paths) and not any(name.startswith(block) for block in compiled):
            yield name, module


def table_key(model: nn.Module, run: Run, arguments: CallArguments, timesteps: tuple[float, ...]) -> Hashable | None:
    """Everything a timestep-only layer's output depends on besides weights; None when that cannot be told, and layers compute."""
    facts = TIME_ONLY.get(type(model).__name__)
    latents, timestep = arguments.latents, arguments.timestep
    if (
        facts is None
        or not isinstance(latents, Tensor)
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled(latents.device.type)
    ):
        return None
    if isinstance(timestep, Tensor) and timestep.numel() > MAX_TIMESTEP_VALUES:
        return None
    try:
        others = tuple(run.frozen.get(name, arguments.named.get(name)) for name in facts.arguments[1:])
    except TypeError:
        return None
    kind = getattr(timestep, "dtype", type(timestep))
    return (latents.shape[0], latents.dtype, latents.device, torch.is_inference_mode_enabled(), kind, timesteps, others)
