"""One op, one signature, several implementations, and the choice between them for each call.

The PyTorch reference is the signature: the schema is inferred from it, and every other backend takes the same arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from ..env import BACKENDS, setting

NAMESPACE = "halfbyte"
# Tried in this order for tensors on the device; a backend that is not listed for a device runs there only when asked for by name.
PREFERENCE = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "reference")}

logger = logging.getLogger("halfbyte.ops")
OPS: dict[str, Op] = {}

_forced: ContextVar[str | None] = ContextVar("forced_backend", default=None)
_library = torch.library.Library(NAMESPACE, "DEF")
_reported: set[tuple[str, str, str]] = set()

Rejects = Callable[..., str | None]
KernelName = Callable[..., str | None]


class NoBackendError(RuntimeError):
    """No implementation accepts the call; the message gives every backend's reason."""


def accepts_all(*args: Any) -> None:
    return None


def names_none(*args: Any) -> None:
    return None


class Op:
    """The op `torch.ops.halfbyte.<name>`, made by decorating its reference: plain PyTorch, on any device.

    Two more functions with the same arguments complete it: `set_fake` (empty outputs of the right shape and dtype) and
    `set_check` (ValueError on a wrong shape or dtype), which runs before every implementation and before the fake. The check of
    a matrix product returns the product's shape.
    """

    def __init__(self, reference: Callable) -> None:
        self.name = reference.__name__
        self.__doc__ = reference.__doc__
        self.reference = reference
        self.check: Callable = accepts_all
        self.targets: dict[str, str | Callable] = {"reference": reference}
        self.rejects: dict[str, Rejects] = {"reference": accepts_all}
        self.kernels: dict[str, KernelName] = {"reference": names_none}
        self._missing: dict[str, str] = {}
        schema = torch.library.infer_schema(reference, mutates_args=())
        _library.define(self.name + schema, tags=torch.Tag.pt2_compliant_tag)
        _library.impl(self.name, self._run, "CompositeExplicitAutograd")
        self.overload = getattr(getattr(torch.ops, NAMESPACE), self.name).default
        OPS[self.name] = self

    def set_fake(self, fake: Callable) -> Callable:
        self.fake = fake
        torch.library.register_fake(f"{NAMESPACE}::{self.name}", self._run_fake, lib=_library)
        return fake

    def set_check(self, check: Callable) -> Callable:
        self.check = check
        return check

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.overload(*args, **kwargs)

    def add(
        self, backend: str, target: str | Callable, rejects: Rejects = accepts_all, kernel: KernelName = names_none
    ) -> Op:
        """Register an implementation.

        target: "module:function", imported at first use. rejects: same arguments; one sentence why this call cannot run here, or
        None. kernel: same arguments, of a call that it takes; the one kernel that computes it, or None where several do.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend: one of {', '.join(BACKENDS)} needed, got {backend!r}")
        if backend in self.targets:
            raise ValueError(f"backend: {self.name} already has an implementation for {backend!r}")
        self.targets[backend], self.rejects[backend], self.kernels[backend] = target, rejects, kernel
        return self

    def missing(self, backend: str) -> str | None:
        """Why this machine has no such implementation, or None when it imports."""
        if backend not in self.targets:
            return "not implemented"
        target = self.targets[backend]
        if isinstance(target, str) and backend not in self._missing:
            module, _, function = target.partition(":")
            try:
                self.targets[backend] = getattr(importlib.import_module(module), function)
            except (ImportError, AttributeError) as error:
                self._missing[backend] = str(error)
        return self._missing.get(backend)

    def choose(self, *args: Any) -> str:
        """The backend that runs this call. Raises NoBackendError."""
        forced = named_backend()
        device = self._device(args)
        reasons = []
        for backend in (forced,) if forced else PREFERENCE.get(device.type, ("reference",)):
            if backend not in self.targets and not forced:
                continue
            reason = self.missing(backend) or self.rejects[backend](*args)
            if reason is None:
                for skipped, why in reasons:
                    self._report(skipped, backend, why, device)
                return backend
            reasons.append((backend, reason))
        listed = "; ".join(f"{backend}: {reason}" for backend, reason in reasons)
        raise NoBackendError(f"no implementation of {self.name} accepts this call ({listed})")

    def _device(self, args: tuple) -> torch.device:
        """The one device of all tensors. Raises ValueError when there are two."""
        device = None
        for position, arg in enumerate(args):
            if not isinstance(arg, Tensor):
                continue
            if device is not None and arg.device != device:
                name = self.overload._schema.arguments[position].name
                raise ValueError(f"{self.name}: {name} must be on {device} like the tensors before it, got {arg.device}")
            device = arg.device
        return device or torch.device("cpu")

    def _report(self, skipped: str, chosen: str, reason: str, device: torch.device) -> None:
        if (key := (self.name, skipped, reason)) not in _reported:
            _reported.add(key)
            # On a CPU the reference is an ordinary choice; on a GPU it is a slow surprise.
            level = logging.INFO if device.type == "cpu" else logging.WARNING
            logger.log(level, "%s runs on %s because %s said: %s", self.name, chosen, skipped, reason)

    def _run(self, *args: Any) -> Any:
        self.check(*args)
        target, device = self.targets[self.choose(*args)], self._device(args)
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            return target(*args)
        # Kernels start on the current device, whose streams and memory those of another GPU are not.
        with torch.cuda.device(device):
            return target(*args)

    def _run_fake(self, *args: Any) -> Any:
        self.check(*args)
        return self.fake(*args)


@functools.cache
def backend_of_environment() -> str | None:
    """The value of HALFBYTE_BACKEND at the first call of an op. Raises ValueError when it names no backend."""
    return setting("HALFBYTE_BACKEND")


def named_backend() -> str | None:
    """The backend asked for by name, with use_backend or HALFBYTE_BACKEND, or None when the choice is the ops' own."""
    return _forced.get() or backend_of_environment()


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every op of this context on one backend, or raise NoBackendError; for this thread or task only."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: one of {', '.join(BACKENDS)} needed, got {backend!r}")
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def backends() -> dict[str, list[str]]:
    """Backend -> names of the ops whose implementation imports on this machine."""
    return {backend: [name for name, op in OPS.items() if op.missing(backend) is None] for backend in BACKENDS}
