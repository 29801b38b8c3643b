"""One down factor for all layers that read the same input: kept one tensor while modules convert their layers one by one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .weight import LowBitWeight

CONVERSIONS = "halfbyte_conversions"


def convert_shared(down: Tensor, key: Hashable, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """convert(down), or the result of an earlier call with the same key while anything still uses it."""
    conversions: dict[Hashable, weakref.ref[Tensor]] = down.__dict__.setdefault(CONVERSIONS, {})
    converted = conversions[key]() if key in conversions else None
    if converted is None:
        converted = convert(down)
        if converted is not down:
            conversions[key] = weakref.ref(converted)
    return converted


def share_down(weights: Sequence[LowBitWeight]) -> None:
    """Make the first weight own the proj_down of all; raises ValueError when theirs has other values."""
    owner = weights[0]
    if owner.proj_down is None:
        raise ValueError("proj_down: needed to share it, got a format of rank 0")
    for weight in weights[1:]:
        if weight.proj_down is None or not torch.equal(weight.proj_down, owner.proj_down):
            raise ValueError(f"proj_down: {weight} needs the same values as {owner} to share them")
    for weight in weights:
        weight.state.storage["proj_down"], weight.state.owns_down = owner.proj_down, weight is owner
