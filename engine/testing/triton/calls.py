"""Calls of ops at the sizes of real layers whose tensors hold nothing: enough to see what would be compiled and launched."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from ...ops import OPS
from ..calls import Calls, calls_of
from ..shapes import Shape


def empty_calls(op: str, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> Calls:
    """`calls_of` with uninitialised tensors, whose memory is never touched, and next layers in segments that a tile holds."""
    with FakeTensorMode():
        calls = calls_of(op, shape, dtype)
    if "glu" in inspect.signature(OPS[op].reference).parameters:
        calls = {name: in_narrow_segments(args) for name, args in calls.items()}
    return tree_map_only(Tensor, lambda fake: torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype), calls)


def in_narrow_segments(args: tuple) -> tuple:
    """Where a product hands 8-bit codes over, in segments of 64 columns: with longer ones it launches what other ops do."""
    at = next((i for i, value in enumerate(args) if isinstance(value, str) and value in ("int8", "fp8")), None)
    if at is None:
        return args
    n, glu = args[2].shape[0], args[at - 3]
    return (*args[: at + 1], 0.0, False, (n if glu == "none" else n // 2) // 64)


def one_of_each_kind(calls: Calls) -> Calls:
    """The last call of those whose ids begin with the same word, which is a format or an activation."""
    return {name: args for name, args in {name.split("-")[0]: (name, args) for name, args in calls.items()}.values()}
