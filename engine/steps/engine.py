"""The step engine: hooks on one denoiser that compute, reuse or forecast as its cache config says."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..models.families import INJECTED_RESIDUALS
from .arguments import ArgumentReader
from .call import Call
from .config import CacheConfig
from .context import StepContext
from .hook_base import EngineHook, add_hook, drop_hook, engine_hooks
from .hook_deep import DeepHook
from .hook_root import RootHook
from .hook_stack import ProbeHook, StackHook
from .hook_table import TableHook, table_key, tabulated_modules
from .policy import Action, Decision
from .predictor import Hold
from .run import Run, active
from .site import Cut, Site, sites_for
from .state import BranchState
from .table import Table

_numbers = itertools.count()


class StepEngine:
    """Skips parts of `model` on the steps its config says; on any doubt it computes.

    config None computes every step, and still lets a run be cancelled. `reason` says why a model offers nothing to skip.
    Calls outside `run()` pass through. Raises ValueError for a site that was asked for by name and is not there.
    """

    def __init__(self, model: nn.Module, config: CacheConfig | None = None):
        self.model, self.config = model, config
        self._reader = ArgumentReader(model)
        self.cut = (
            sites_for(model, config.site, config.policy.probes, config.depth) if config else Cut(reason="no cache was asked for")
        )
        if config and config.site != "auto" and not self.cut.sites:
            raise ValueError(f"site {config.site!r} is not there: {self.cut.reason}")
        if config and config.policy.probes and self.cut.sites and self.cut.probe is None:
            raise ValueError(
                f"{type(config.policy).__name__} needs a first block that always computes; depth {config.depth} leaves none"
            )
        self.table = Table() if config and config.tabulate else None
        self._hooked: list[nn.Module] = []
        self._hook_name = f"halfbyte_steps_{next(_numbers)}"

    @property
    def reason(self) -> str:
        return self.cut.reason

    @property
    def output_site(self) -> Site | None:
        return next((site for site in self.cut.sites if site.kind == "output"), None)

    @property
    def attached(self) -> bool:
        return bool(self._hooked)

    def attach(self) -> None:
        """Put the hooks on; raises ValueError when the model runs another cache or was compiled around the hooks."""
        if self.attached:
            return
        if getattr(self.model, "is_cache_enabled", False):
            raise ValueError("model needs to have no other cache; call its disable_cache() first")
        if engine_hooks(self.model):
            raise ValueError("model needs to have no step engine; detach the one it has first")
        hooks = self._hooks()
        for module, _ in hooks:
            if getattr(module, "_compiled_call_impl", None) is not None:
                raise ValueError(
                    f"{type(module).__name__} was compiled as a whole, hooks included; use halfbyte.steps.compile_blocks instead"
                )
        for module, hook in hooks:
            add_hook(module, hook, self._hook_name)
            self._hooked.append(module)

    def detach(self) -> None:
        """Take the hooks off; the model is left as it was found."""
        while self._hooked:
            drop_hook(self._hooked.pop(), self._hook_name)

    def _hooks(self) -> list[tuple[nn.Module, EngineHook]]:
        hooks: list[tuple[nn.Module, EngineHook]] = [(self.model, RootHook(self))]
        if self.config and self.config.policy.probes and self.cut.probe is not None:
            hooks.append((self.cut.probe, ProbeHook(self, self.cut.probe, self.cut.probe_streams)))
        for site in self.cut.sites:
            for index, module in enumerate(site.modules):
                if site.kind == "stack":
                    hooks.append((module, StackHook(self, site, index)))
                else:
                    hooks.append((module, DeepHook(self, site, index, is_down=module in list(self.model.down_blocks))))
        if self.table is not None:
            hooks += [(module, TableHook(self, module, name)) for name, module in tabulated_modules(self.model)]
        return hooks

    @contextlib.contextmanager
    def run(self, scheduler: Any = None, n_steps: int | None = None) -> Iterator[Run]:
        """Open one pipeline call's state for this thread or task, new at the start and dropped at the end whatever ends it.

        scheduler: the one the pipeline will step, read at the first call for the number of steps. n_steps: that number itself.
        Without either a schedule cannot tell which step is the last.
        """
        points = self.config.predictor.points if self.config else 1
        with active(self, Run(points, scheduler, n_steps)) as run:
            yield run

    def open_call(self, run: Run, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Call:
        """Decide one denoiser call."""
        arguments = self._reader.read(module, args, kwargs)
        context, timesteps = run.observe(arguments)
        state, decision = self._decide(run, context, arguments.named)
        predictor = self.config.predictor if self.config else Hold()
        call = Call(context, state, decision, predictor, self.cut.sites)
        if self.table is not None:
            call.table_key = table_key(module, run, arguments, timesteps)
        return call

    def _decide(self, run: Run, context: StepContext, named: dict[str, Any]) -> tuple[BranchState | None, Decision]:
        if not self.cut.sites:
            return None, Decision(Action.COMPUTE, self.reason)
        if context.branch is None:
            return None, Decision(Action.COMPUTE, context.reason)
        if injected := next((name for name in INJECTED_RESIDUALS if named.get(name) is not None), None):
            return None, Decision(Action.COMPUTE, f"{injected} were given")
        state, changed = run.state(context)
        if changed:
            return state, Decision(Action.COMPUTE, "shape changed")
        return state, self.config.policy.decide(context, state.consecutive)
