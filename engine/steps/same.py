"""Whether two call arguments hold the same values, by identity where that settles it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Remembered:
    """A value as it was when it was passed: later writes into its tensors make it equal to nothing.

    Keeps the value alive, so that a new tensor cannot appear at its address. tensors: every tensor inside it. Inference tensors
    do not count writes; they are copied, unless `copies` is false, and then taken to be left alone.
    """

    def __init__(self, value: Any, copies: bool = True):
        self.value = value
        self.tensors = _tensors(value)
        self._versions = [version_of(tensor) for tensor in self.tensors]
        self._reference = _with_copies(value) if copies and None in self._versions else value

    @property
    def intact(self) -> bool:
        """Whether nobody has written into its tensors since, as far as tensors count that."""
        return self._versions == [version_of(tensor) for tensor in self.tensors]

    def equals(self, other: Any) -> bool:
        """Whether `other` holds the same values now; tensors that are one object are not compared element by element."""
        return self.intact and _equal(self._reference, other)


def version_of(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None for an inference tensor, which does not count."""
    return None if tensor.is_inference() else tensor._version


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def _with_copies(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, Mapping):
        return {name: _with_copies(item) for name, item in value.items()}
    return [_with_copies(item) for item in value] if isinstance(value, (list, tuple)) else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return False
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b))
    return a is b or (type(a) is type(b) and isinstance(a, (int, float, complex, bool)) and a == b)
