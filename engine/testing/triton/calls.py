"""Calls of ops at the sizes of real layers whose tensors hold nothing: enough to see what would be compiled and launched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from ..calls import Calls, calls_of
from ..shapes import Shape


def empty_calls(op: str, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> Calls:
    """`calls_of` with uninitialised tensors, whose memory is never touched."""
    with FakeTensorMode():
        calls = calls_of(op, shape, dtype)
    return tree_map_only(Tensor, lambda fake: torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype), calls)


def one_of_each_kind(calls: Calls) -> Calls:
    """The last call of those whose ids begin with the same word, which is a format or an activation."""
    return {name: args for name, args in {name.split("-")[0]: (name, args) for name, args in calls.items()}.values()}
