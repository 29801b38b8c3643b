"""Launch configurations, looked up in a call and searched for only when asked.

First the user's file for this GPU, then the one shipped for its architecture, then the kernel's own default. An op's config is a
frozen dataclass whose fields are launch arguments; beside the kernel are `<op>_default(m, n, k, capability)`, which gives one,
and `<op>_configs` with the same arguments, which lists those worth measuring.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import triton

from .tuned_files import file_of, read_configs, write_configs

SHIPPED = Path(__file__).parent / "defaults"
Config = TypeVar("Config")


@dataclass(frozen=True)
class Request:
    """One look-up. dtype: what of the operands' types changes the kernel, as one word; M, N, K: sizes of the product."""

    op: str
    device: torch.device
    dtype: str
    m: int
    n: int
    k: int
    default: Any
    configs: Callable[..., Iterable[Any]]

    @property
    def space(self) -> tuple:
        """The default, then the others worth measuring, each once."""
        return tuple(dict.fromkeys((self.default, *self.configs(self.m, self.n, self.k, capability_of(self.device)))))

    @property
    def key(self) -> str:
        """M counts as the next power of two; N and K as they are."""
        return f"{self.op} {self.dtype} {triton.next_power_of_2(self.m)} {self.n} {self.k}"


_folder: Path | None = None
_remembered: dict[tuple, Any] = {}
_listeners: ContextVar[tuple[list[Request], ...]] = ContextVar("listeners", default=())
_trials: ContextVar[dict[str, Any]] = ContextVar("trials", default={})


def set_cache_folder(folder: Path | None) -> None:
    """Where the user's files are; None: nowhere."""
    global _folder
    _folder = folder
    _remembered.clear()


def cache_folder() -> Path | None:
    return _folder


def capability_of(device: torch.device) -> tuple[int, int]:
    """Of the GPU that kernels are compiled for; in the interpreter the oldest that is supported."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)
    if triton.knobs.runtime.interpret:
        return 8, 0
    return divmod(triton.runtime.driver.active.get_current_target().arch, 10)


def stages_of(num_stages: int, capability: tuple[int, int]) -> int:
    """How many stages may be in flight of operands that come by pointers and are multiplied as they are.

    On sm_90 Triton 3.6 leaves out the proxy fence between asynchronous copies of threads and the warpgroup product that reads
    them (triton-lang/triton#9610). One stage goes by way of registers and has its fence.
    """
    return 1 if capability[0] == 9 else num_stages


def config_for(
    op: str,
    device: torch.device,
    dtype: str,
    m: int,
    n: int,
    k: int,
    default: Callable[[int, int, int, tuple[int, int]], Config],
    configs: Callable[[int, int, int, tuple[int, int]], Iterable[Config]],
) -> Config:
    """The configuration of this call."""
    if listeners := _listeners.get():
        request = Request(op, device, dtype, m, n, k, default(m, n, k, capability_of(device)), configs)
        for listener in listeners:
            listener.append(request)
    if (trial := _trials.get().get(op)) is not None:
        return trial
    if device.type == "cuda":
        place = (device.index, op, dtype, triton.next_power_of_2(m), n, k)
        if place not in _remembered:
            _remembered[place] = _find(Request(op, device, dtype, m, n, k, default(m, n, k, capability_of(device)), configs))
        if (found := _remembered[place]) is not None:
            return found
    return default(m, n, k, capability_of(device))


def _find(request: Request) -> Any:
    major, minor = torch.cuda.get_device_capability(request.device)
    paths = [file_of(_folder, torch.cuda.get_device_name(request.device))] if _folder else []
    for path in (*paths, SHIPPED / f"sm_{major}{minor}.json"):
        if config := read_configs(path, {request.key: type(request.default)}).get(request.key):
            return config
    return None


def remember(found: dict[Request, Any]) -> Path:
    """Add configurations to the file of the GPU that they were measured on, and use them from now on.

    Raises ValueError where no cache folder is set, and OSError when it cannot be written.
    """
    if _folder is None:
        raise ValueError("set_cache_folder: a folder needed to keep configurations in, got None")
    device = next(iter(found)).device
    path = file_of(_folder, torch.cuda.get_device_name(device))
    write_configs(path, {request.key: config for request, config in found.items()})
    _remembered.clear()
    return path


@contextlib.contextmanager
def listening() -> Iterator[list[Request]]:
    """The look-ups of this thread or task, in order."""
    heard: list[Request] = []
    token = _listeners.set((*_listeners.get(), heard))
    try:
        yield heard
    finally:
        _listeners.reset(token)


@contextlib.contextmanager
def trying(op: str, config: Any) -> Iterator[None]:
    """Calls of this op in this thread or task run with the configuration."""
    token = _trials.set({**_trials.get(), op: config})
    try:
        yield
    finally:
        _trials.reset(token)
