"""The hook on the denoiser: opens a call, decides it, and hands out the whole output where that is what is cached."""

from __future__ import annotations

from typing import Any

from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .hook_base import EngineHook
from .run import Interrupted, current_run


class RootHook(EngineHook):
    """Passes through outside any run. Raises Interrupted once the run is cancelled; any exception drops the run's states."""

    _is_stateful = True

    def __init__(self, owner: Any):
        super().__init__(owner)
        # diffusers hands its cache context to the state managers it finds among a stateful hook's attributes
        self.context_receiver = ContextReceiver(owner)

    def reset_state(self, module: nn.Module) -> nn.Module:
        return module

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = current_run(self.owner)
        if run is None:
            return self.forward(*args, **kwargs)
        if run.cancelled:
            raise Interrupted("this call was cancelled")
        try:
            run.call = call = self.owner.open_call(run, module, args, kwargs)
            site = self.owner.output_site
            if site is None:
                output = self.forward(*args, **kwargs)
            elif call.skips(site):
                output = _wrapped(call.state.layout, call.value(site)[0])
            else:
                output = self.forward(*args, **kwargs)
                if call.state is not None:
                    call.record(site, _unwrapped(output))
                    call.state.layout = type(output)
            run.stats.timeline.append(call.close())
        except BaseException:
            run.drop_states()
            raise
        finally:
            run.call = None
        return output


class ContextReceiver(StateManager):
    """Takes the pipeline's cache context into the run of the calling thread."""

    def __init__(self, owner: Any):
        super().__init__(BaseState)
        self._owner = owner

    def set_context(self, context: Any) -> None:
        run = current_run(self._owner)
        if run is not None:
            run.context = context


def _unwrapped(output: Any) -> Any:
    """The tensor of a denoiser's output, or the output itself when it holds anything else."""
    if isinstance(output, (tuple, BaseOutput)) and len(output) == 1 and isinstance(output[0], Tensor):
        return output[0]
    return output


def _wrapped(layout: type, tensor: Tensor) -> Any:
    return layout(sample=tensor) if issubclass(layout, BaseOutput) else (tensor,)
