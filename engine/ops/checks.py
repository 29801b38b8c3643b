"""Argument checks that every backend shares: one sentence with the tensor, what was needed and what came."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def expect(name: str, tensor: Tensor | None, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Raise ValueError unless the tensor is None or has this shape and one of these dtypes (any when none is given)."""
    if tensor is None:
        return
    if tensor.shape != shape:
        raise ValueError(f"{name}: shape {list(shape)} needed, got {list(tensor.shape)}")
    if dtypes and tensor.dtype not in dtypes:
        needed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name}: dtype {needed} needed, got {str(tensor.dtype).removeprefix('torch.')}")


def expect_dim(name: str, tensor: Tensor, dim: int, *dtypes: torch.dtype) -> None:
    """Raise ValueError unless the tensor has `dim` dimensions and one of these dtypes."""
    if tensor.dim() != dim:
        raise ValueError(f"{name}: {dim} dimensions needed, got shape {list(tensor.shape)}")
    expect(name, tensor, tuple(tensor.shape), *dtypes)


def expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: one of {', '.join(allowed)} needed, got {value!r}")


def expect_divides(name: str, size: int, multiple: int, what: str) -> None:
    if size % multiple:
        raise ValueError(f"{name}: {what} must be a multiple of {multiple}, got {size}")


def expect_float(name: str, dtype: torch.dtype) -> None:
    if dtype not in FLOATS:
        raise ValueError(f"{name}: float32, bfloat16 or float16 needed, got {dtype}")
