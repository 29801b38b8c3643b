"""A convolution's weight as the matrix that is stored, with K in the order (kh, kw, in_channels), and back."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """(kh, kw) of a weight of shape [N, K] or [N, C, kh, kw]."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, 1)


def to_matrix(weight: Tensor) -> Tensor:
    """[N, K] as it is, or [N, C, kh, kw] -> [N, kh*kw*C]."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def from_matrix(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `to_matrix` for a weight of this shape, contiguous."""
    if len(shape) == 2:
        return matrix
    n, channels, height, width = shape
    return matrix.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2).contiguous()


def smooth_columns(smooth_factor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """smooth_factor [C] in float32, repeated for every tap -> [K]."""
    height, width = kernel_of(shape)
    return smooth_factor.float().repeat(height * width)


def random_matrix(rows: int, columns: int, like: Tensor) -> Tensor:
    """The same Gaussian matrix [rows, columns] on every call and device, float32."""
    generator = torch.Generator().manual_seed(rows * 1_000_003 + columns)
    return torch.randn(rows, columns, generator=generator).to(like.device)
