"""The hooks on the idle part of a UNet: on a skipped step they hand on placeholders, the last of them the forecast."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..models.families import BlockStreams, argument_names
from .hook_base import EngineHook
from .hook_stack import StreamReader
from .run import current_run
from .site import Site, residual_count


class DeepHook(EngineHook):
    """residuals: how many a down block hands to the up path, 0 for the middle and the up blocks."""

    def __init__(self, owner: Any, site: Site, index: int, is_down: bool):
        super().__init__(owner)
        module = site.modules[index]
        self.site = site
        self.residuals = residual_count(module) if is_down else 0
        self.is_last = index == len(site.modules) - 1
        self.reader = StreamReader(module, BlockStreams((argument_names(module)[0],)))

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = current_run(self.owner)
        call = run.call if run is not None else None
        if call is None:
            return self.forward(*args, **kwargs)
        if not call.skips(self.site):
            output = self.forward(*args, **kwargs)
            if self.is_last:
                call.record(self.site, output[0] if isinstance(output, tuple) and len(output) == 1 else output)
            return output
        hidden_states = call.value(self.site)[0] if self.is_last else self.reader.read(args, kwargs)[0]
        if self.residuals:
            # only idle modules read the residuals of a down block that is idle
            return hidden_states, (hidden_states,) * self.residuals
        return (hidden_states,) if kwargs.get("return_dict") is False else hidden_states
