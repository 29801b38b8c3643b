"""Calibration: run the float model once and keep, per input group, sampled input rows and a few complete attention calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .reservoir import CallReservoir, RowReservoir, seed_of
from .rows import gather_rows, row_count

ATTENTION_CALLS = 4
ATTENTION_TOKENS = 8192
# With fewer rows a layer is better fitted to its weight alone.
FEWEST_ROWS = 16


@dataclass(frozen=True)
class Tap:
    """Where to listen: the layer whose input the group `name` shares, rows to keep, and the attention it belongs to, if any."""

    name: str
    module: nn.Linear | nn.Conv2d
    rows: int
    attention: nn.Module | None = None


@dataclass(frozen=True)
class Samples:
    """What was heard: rows to fit on [M, K], rows held out [H, K], calls (args, kwargs) of the attention; all on the CPU."""

    fit: Tensor
    held_out: Tensor
    calls: list[tuple[tuple, dict]] = field(default_factory=list)


def collect(taps: Sequence[Tap], calibrate: Callable[[], None]) -> dict[str, Samples]:
    """Run `calibrate` once and return the samples of every tap that heard at least FEWEST_ROWS rows, by name.

    The same calls in the same order give the same samples. The hooks are gone afterwards, whatever happens.
    """
    rows = {tap.name: RowReservoir(tap.rows, seed_of(tap.name)) for tap in taps}
    attentions = {id(tap.attention): tap for tap in reversed(taps) if tap.attention is not None}
    calls = {
        key: CallReservoir(ATTENTION_CALLS, ATTENTION_TOKENS, seed_of(f"{tap.name} calls")) for key, tap in attentions.items()
    }
    with contextlib.ExitStack() as stack, torch.no_grad():
        for tap in taps:
            stack.enter_context(_listening(tap.module, _row_listener(tap.module, rows[tap.name])))
        for key, tap in attentions.items():
            stack.enter_context(_listening(tap.attention, _call_listener(calls[key])))
        calibrate()
    samples = {}
    for tap in taps:
        fit, held_out = rows[tap.name].rows()
        if len(fit) and len(held_out) and len(fit) + len(held_out) >= FEWEST_ROWS:
            samples[tap.name] = Samples(fit, held_out, calls[id(tap.attention)].calls() if tap.attention is not None else [])
    return samples


def sample_bytes(tap: Tap) -> int:
    """An upper bound for the memory that the samples of a tap take."""
    weight = tap.module.weight
    tokens = ATTENTION_TOKENS if tap.attention is not None else 0
    return (2 * tap.rows + tokens) * weight[0].numel() * weight.element_size()


def on_device(value: Any, device: torch.device) -> Any:
    """A call argument with its tensors copied to the device, containers rebuilt."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    return type(value)(on_device(item, device) for item in value) if type(value) in (list, tuple) else value


@contextlib.contextmanager
def _listening(module: nn.Module, listener: Callable) -> Iterator[None]:
    handle = module.register_forward_pre_hook(listener, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _row_listener(module: nn.Module, reservoir: RowReservoir) -> Callable:
    def listen(_: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs["input"]
        reservoir.offer(*row_count(module, x), lambda index: gather_rows(module, x, index))

    return listen


def _call_listener(reservoir: CallReservoir) -> Callable:
    cpu = torch.device("cpu")

    def listen(_: nn.Module, args: tuple, kwargs: dict) -> None:
        first = next(value for value in [*args, *kwargs.values()] if isinstance(value, Tensor))
        reservoir.offer(first.numel() // first.shape[-1], lambda: (on_device(args, cpu), on_device(kwargs, cpu)))

    return listen
