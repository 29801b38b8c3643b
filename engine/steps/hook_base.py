"""Put hooks of diffusers' public classes on modules, and take them off so that nothing of them stays."""

from __future__ import annotations

from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn


class EngineHook(ModelHook):
    """A hook of one step engine; `forward` runs what it wraps. owner: the engine, None once it let go."""

    def __init__(self, owner: Any):
        super().__init__()
        self.owner = owner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn_ref.original_forward(*args, **kwargs)


def add_hook(module: nn.Module, hook: EngineHook, name: str) -> None:
    """Raises ValueError when the module already has a hook of that name."""
    hook.own_forward = "forward" in vars(module)
    hook.own_registry = "_diffusers_hook" in vars(module)
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)
    hook.placed = module.forward


def drop_hook(module: nn.Module, name: str) -> None:
    """Remove one hook; the module's forward and registry are left as they were before `add_hook`.

    A hook that something outside the registry was wrapped around since (accelerate's offloading) cannot be unlinked; it stays,
    lets go of its engine and passes every call through.
    """
    registry: HookRegistry = module._diffusers_hook
    hook = registry.get_hook(name)
    later = list(registry.hooks.values())[list(registry.hooks).index(name) + 1 :]
    if not later and module.forward is not hook.placed:
        hook.owner = None
        return
    outer = later[0].fn_ref if later else None
    if outer is None or outer.original_forward is None:
        registry.remove_hook(name, recurse=False)
    else:
        # diffusers re-links `forward` of the next hook even where that hook supplies its own and keeps what it wraps elsewhere
        supplied = outer.forward
        registry.remove_hook(name, recurse=False)
        outer.original_forward, outer.forward = outer.forward, supplied
    if not registry.hooks and not hook.own_registry:
        del module._diffusers_hook
    if not registry.hooks and not hook.own_forward:
        del module.forward


def engine_hooks(module: nn.Module) -> list[EngineHook]:
    """The hooks on a module that an engine holds."""
    registry = getattr(module, "_diffusers_hook", None)
    hooks = registry.hooks.values() if registry is not None else ()
    return [hook for hook in hooks if isinstance(hook, EngineHook) and hook.owner is not None]
