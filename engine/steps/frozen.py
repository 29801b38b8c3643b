"""Hashable copies of small call arguments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from .arguments import MAX_TIMESTEP_VALUES
from .same import Remembered


def frozen(value: Any) -> Hashable:
    """A hashable copy of an argument; raises TypeError for a large tensor or a value of another kind."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return tuple((name, frozen(item)) for name, item in value.items())
    if isinstance(value, Tensor) and value.numel() <= MAX_TIMESTEP_VALUES:
        return (tuple(value.shape), value.dtype, tuple(value.flatten().tolist()))
    raise TypeError(f"{type(value).__name__} is no small argument")


class FrozenArguments:
    """Frozen copies of a run's arguments, read off the device once per tensor: most pipelines pass the same one at every step."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Remembered, Hashable]] = {}

    def get(self, name: str, value: Any) -> Hashable:
        if not isinstance(value, Tensor) or value.is_inference():
            return frozen(value)
        known = self._known.get(name)
        if known is None or known[0].value is not value or not known[0].intact:
            known = self._known[name] = (Remembered(value), frozen(value))
        return known[1]
