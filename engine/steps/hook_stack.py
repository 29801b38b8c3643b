"""The hooks on transformer blocks: run them, or pass their inputs through and add the forecast behind the last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.families import BlockStreams, argument_names
from .hook_base import EngineHook
from .policy import Action
from .run import current_run
from .site import Site


class StreamReader:
    """Picks a block's streams out of its call by name, wherever the caller put them."""

    def __init__(self, block: nn.Module, streams: BlockStreams):
        names = argument_names(block)
        self._places = [(name, names.index(name)) for name in streams.names]

    def read(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor | None, ...]:
        return tuple(args[place] if place < len(args) else kwargs.get(name) for name, place in self._places)


class StackHook(EngineHook):
    """One block of a stack site."""

    def __init__(self, owner: Any, site: Site, index: int):
        super().__init__(owner)
        self.site = site
        self.reader = StreamReader(site.modules[index], site.streams)
        self.is_first, self.is_last = index == 0, index == len(site.modules) - 1

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = current_run(self.owner)
        call = run.call if run is not None else None
        if call is None:
            return self.forward(*args, **kwargs)
        if self.is_first:
            call.enter(self.site, self.reader.read(args, kwargs))
        if not call.skips(self.site):
            output = self.forward(*args, **kwargs)
            if self.is_last:
                call.record(self.site, output)
            return output
        handed = call.value(self.site) if self.is_last else self.reader.read(args, kwargs)
        return handed if len(handed) > 1 else handed[0]


class ProbeHook(EngineHook):
    """The block a gate asks: always computed, its residual compared with that of the last computed step."""

    def __init__(self, owner: Any, block: nn.Module, streams: BlockStreams | None):
        super().__init__(owner)
        streams = streams or BlockStreams((argument_names(block)[0],))
        self.index = streams.denoised
        self.reader = StreamReader(block, streams)

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        run = current_run(self.owner)
        call = run.call if run is not None else None
        if call is None or call.state is None:
            return output
        given = self.reader.read(args, kwargs)[self.index]
        computed = output[self.index] if isinstance(output, tuple) else output
        residual = computed - given if computed.shape == given.shape else computed.clone()
        if call.decision.action is Action.PROBE:
            decision = self.owner.config.policy.judge(relative_l1(residual, call.state.probe))
            if decision.action is Action.FORECAST:
                call.forecast(decision)
            else:
                call.compute(decision.reason)
        if call.decision.action is Action.COMPUTE:
            call.state.probe = residual
        return output


def relative_l1(value: Tensor, reference: Tensor) -> float:
    """mean|value - reference| / mean|reference|, infinite for tensors of different form; waits for the device once."""
    if (value.shape, value.dtype, value.device) != (reference.shape, reference.dtype, reference.device):
        return float("inf")
    change = (value - reference).abs().mean(dtype=torch.float32)
    return float(change / reference.abs().mean(dtype=torch.float32))
