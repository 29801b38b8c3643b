"""Nested dataclasses with tensors in them, taken apart into the tensors and a comparable rest, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..ops.cpu import PackedWeight
from .branch import Branch
from .emulated import Emulated
from .expanded import Expanded
from .expanded_each_call import ExpandedEachCall
from .fold import FoldedWeight
from .int8_convolution import Int8Convolution
from .int8_linear import Int8Linear
from .kernel_form import KernelForm
from .streamed_form import StreamedForm

FORMS = (Emulated, Expanded, ExpandedEachCall, Int8Convolution, Int8Linear, KernelForm, StreamedForm)
NODES = (*FORMS, Branch, FoldedWeight, PackedWeight)


@dataclass(frozen=True)
class Leaf:
    """The place of tensor number `index`."""

    index: int


def take_apart(value: Any, tensors: list[Tensor]) -> Any:
    """Append the tensors inside value to `tensors`; what is left is hashable and equal for values that compute alike.

    The reason for a choice is left out: layers that compute alike share one compilation whatever led to it.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return Leaf(len(tensors) - 1)
    if isinstance(value, tuple):
        return tuple(take_apart(item, tensors) for item in value)
    if isinstance(value, NODES):
        names = [field.name for field in fields(value) if field.name != "reason"]
        return type(value), tuple((name, take_apart(getattr(value, name), tensors)) for name in names)
    return value


def put_together(skeleton: Any, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `take_apart`."""
    if isinstance(skeleton, Leaf):
        return tensors[skeleton.index]
    if not isinstance(skeleton, tuple):
        return skeleton
    if skeleton and skeleton[0] in NODES:
        return skeleton[0](**{name: put_together(value, tensors) for name, value in skeleton[1]})
    return tuple(put_together(item, tensors) for item in skeleton)
