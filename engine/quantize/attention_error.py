"""How far an attention's output moves when its queries, keys or values are computed another way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .calibrate import on_device


class AttentionError:
    """Squared error of an attention's output over captured calls; the float outputs are computed once, here.

    layers: the linears that are to be computed another way. calls: (args, kwargs) as captured.
    """

    def __init__(self, attention: nn.Module, layers: Sequence[nn.Linear], calls: Sequence[tuple[tuple, dict]]):
        self.attention, self.layers = attention, list(layers)
        device = layers[0].weight.device
        self.calls = [(on_device(args, device), on_device(kwargs, device)) for args, kwargs in calls]
        self.outputs = [self._run(*call) for call in self.calls]

    def __call__(self, forwards: Sequence[Callable[[Tensor], Tensor]]) -> float:
        """forwards: per layer, input [..., K] -> output [..., N] in the input's dtype."""
        with _replaced(self.layers, forwards):
            outputs = [self._run(*call) for call in self.calls]
        pairs = ((new, old) for call in zip(outputs, self.outputs, strict=True) for new, old in zip(*call, strict=True))
        return sum(float((new.float() - old.float()).square().sum(dtype=torch.float64)) for new, old in pairs)

    def _run(self, args: tuple, kwargs: dict) -> list[Tensor]:
        with torch.no_grad():
            output = self.attention(*args, **kwargs)
        return [tensor for tensor in (output if isinstance(output, tuple | list) else [output]) if isinstance(tensor, Tensor)]


@contextlib.contextmanager
def _replaced(layers: Sequence[nn.Module], forwards: Sequence[Callable]) -> Iterator[None]:
    before: list[Any] = [vars(layer).get("forward") for layer in layers]
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward
