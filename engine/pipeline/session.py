"""The accelerated pipeline object: the user's pipeline class, one instance, every call in a session of its own.

A session is a shallow copy with its own scheduler and cache state, so that threads, cancels and exceptions leave nothing behind;
weights are shared.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..layers import PreparedReport
from ..models.fused import FusedBlocks
from ..plan import Plan, storage_of
from ..quantize import Decision
from ..steps import StepEngine
from .tokenizers import ThreadTokenizers


@dataclass(frozen=True)
class Prepared:
    """What this device runs in place of the stored tensors, per denoiser."""

    reports: Mapping[str, PreparedReport]
    fused: Mapping[str, FusedBlocks] = field(default_factory=dict)

    @property
    def blocks(self) -> dict[str, str | None]:
        """Name of every transformer block that has a fused form -> why it runs unfused now, None where it runs fused."""
        return {f"{model}.{name}": reason for model, fused in self.fused.items() for name, reason in fused.reasons.items()}

    @property
    def prepared_bytes(self) -> int:
        return sum(report.prepared_bytes for report in self.reports.values())

    @property
    def workspace_bytes(self) -> int:
        """The most that any layer unpacks into during a call."""
        return max((report.workspace_bytes for report in self.reports.values()), default=0)

    @property
    def description(self) -> str:
        """The kinds of prepared weights in use, such as `expanded float32`."""
        return ", ".join(sorted({kind for report in self.reports.values() for kind in report.kinds})) or "float"


class Acceleration:
    """What one accelerated object owns: its plan, a step engine per denoiser, the float models it can give back."""

    def __init__(
        self,
        plan: Plan,
        engines: Mapping[str, StepEngine],
        base: Mapping[str, nn.Module],
        prepared: Prepared,
        decisions: Mapping[str, Sequence[Decision]],
        undo: Sequence[Callable[[], None]],
    ):
        self.plan, self.prepared, self.decisions = plan, prepared, decisions
        self.engines, self.base, self.undo = dict(engines), dict(base), list(undo)
        self.tokenizers = ThreadTokenizers()
        self.active: set[Session] = set()
        self.lock = threading.Lock()
        self.enabled = True
        self.stats: dict[str, Any] = {}

    def cancel(self) -> None:
        """End every call in flight at its next step."""
        with self.lock:
            for session in self.active:
                session.cancel()

    @contextlib.contextmanager
    def session(self, pipe: Any, scheduler: Any) -> Iterator[Session]:
        """Open the per-request state of one call that steps `scheduler`; always closed, whatever ends the call."""
        session = Session(has_interrupt_flag=hasattr(type(pipe), "interrupt"))
        with contextlib.ExitStack() as stack:
            for name, engine in self.engines.items():
                session.runs[name] = stack.enter_context(engine.run(scheduler))
            with self.lock:
                self.active.add(session)
            try:
                yield session
            finally:
                with self.lock:
                    self.active.discard(session)
                self.stats = {name: run.stats for name, run in session.runs.items()}


class Session:
    """One call: its runs and whether it was cancelled."""

    def __init__(self, has_interrupt_flag: bool):
        self.has_interrupt_flag = has_interrupt_flag
        self.runs: dict[str, Any] = {}
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        if not self.has_interrupt_flag:  # such a pipeline never looks, so the next denoiser call raises
            for run in self.runs.values():
                run.cancel()


class AcceleratedPipeline:
    """Mixed into the class of one pipeline object; the class keeps its name, so it saves and reloads as itself."""

    _acceleration: Acceleration
    _session: Session | None = None

    @property
    def plan(self) -> Plan:
        """The frozen Plan this object executes."""
        return self._acceleration.plan

    @property
    def stats(self) -> dict[str, Any]:
        """What the last finished call computed, reused and why, per denoiser."""
        return self._acceleration.stats

    @property
    def decisions(self) -> Mapping[str, Sequence[Decision]]:
        """Per denoiser what every layer became and why, with what calibration measured; empty for a model loaded in low bits."""
        return self._acceleration.decisions

    @property
    def prepared(self) -> Prepared:
        """What this device runs in place of the stored tensors."""
        return self._acceleration.prepared

    @property
    def _interrupt(self) -> bool:
        return self._session is not None and self._session.cancelled

    @_interrupt.setter
    def _interrupt(self, value: bool) -> None:
        # pipelines clear the flag as they start; a session starts cleared, and a cancel that came first must survive
        if value and self._session is not None:
            self._session.cancel()
        elif value:
            self._acceleration.cancel()

    def disable(self) -> None:
        """Take caching off; with `keep_base=True` put the float model back too, so that output is the float pipeline's, bit for bit.

        Without `keep_base` the float weights are gone: a warning says that the layers stay low-bit.
        """
        acceleration = self._acceleration
        if not acceleration.enabled:
            return
        for engine in acceleration.engines.values():
            engine.detach()
        for undo in acceleration.undo:
            undo()
        if any(acceleration.plan.storage.values()) and not acceleration.base:
            warnings.warn("disable(): caching is off, the layers stay low-bit; accelerate(..., keep_base=True) keeps the float model", stacklevel=2)
        for name, model in acceleration.base.items():
            setattr(self, name, model)
        acceleration.enabled = False

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """The pipeline class's own `save_pretrained`, and beside it the plan, its storage as the layers are now."""
        result = super().save_pretrained(save_directory, **kwargs)
        denoisers = {name: getattr(self, name) for name in self.plan.models}
        replace(self.plan, **storage_of(denoisers)).save(save_directory)
        return result


def as_accelerated(pipe: Any, acceleration: Acceleration) -> Any:
    """A new object of the pipeline's own class (a subclass of the same name) over the same components."""
    base = type(pipe)

    @functools.wraps(base.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._acceleration.enabled:
            return base.__call__(self, *args, **kwargs)
        scheduler = copy.deepcopy(self.scheduler)
        with self._acceleration.session(self, scheduler) as session:
            request = copy.copy(self)
            request.__dict__["scheduler"] = scheduler
            request.__dict__.update(self._acceleration.tokenizers.of(self), _session=session)
            try:
                return base.__call__(request, *args, **kwargs)
            finally:
                _give_back(request, self)

    @classmethod
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        return base.from_pretrained(*args, **kwargs)

    body = {"__call__": call, "from_pretrained": from_pretrained, "__module__": base.__module__, "__doc__": base.__doc__}
    accelerated = copy.copy(pipe)
    accelerated.__class__ = type(base.__name__, (AcceleratedPipeline, base), {**body, "__qualname__": base.__qualname__})
    accelerated.__dict__["_acceleration"] = acceleration
    return accelerated


def _give_back(request: Any, owner: Any) -> None:
    """What a stock call leaves readable on the object (guidance scale, offload hooks) is readable here too; components are not."""
    components = set(owner.config) | {"scheduler", "_session"}
    for name, value in vars(request).items():
        if name not in components:
            owner.__dict__[name] = value
