"""GPTQ: round a weight column by column, each column's error pushed into those not yet rounded.

Source: arXiv 2210.17323, with the scales fixed beforehand and the columns taken in the order of falling input energy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rounding import WeightGrid

BLOCK = 128


def gptq(weight: Tensor, grid: WeightGrid, gram: Tensor, damp: float = 0.01) -> Tensor:
    """Grid points near `weight` that lower ||x (weight - result)^T|| over the rows behind `gram`.

    weight: float32 [N, K]; gram: float32 [K, K], x^T x of the quantized, smoothed input. Returns float32 [N, K] on the grid.
    """
    order = gram.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(gram[order][:, order], damp)
    remaining, step = weight[:, order].clone(), grid.column_step()[:, order]
    values = torch.empty_like(remaining)
    columns = weight.shape[1]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = torch.empty_like(remaining[:, start:end])
        for column in range(start, end):
            values[:, column] = grid.points(remaining[:, column] / step[:, column]) * step[:, column]
            errors[:, column - start] = (remaining[:, column] - values[:, column]) / factor[column, column]
            remaining[:, column + 1 : end] -= errors[:, column - start : column - start + 1] * factor[column, column + 1 : end]
        remaining[:, end:] -= errors @ factor[start:end, end:]
    return values[:, order.argsort()]


def _inverse_factor(gram: Tensor, damp: float) -> Tensor:
    """The upper Cholesky factor of the damped inverse, float32 [K, K]; damping grows until the factorisation exists.

    Factorised in float64: the gram of correlated inputs is close to singular.
    """
    gram = gram.double()
    diagonal = gram.diagonal()
    # A channel that is always zero says nothing about its column, which is then rounded to nearest.
    silent = diagonal == 0
    mean = float(diagonal.mean()) or 1.0
    for strength in (damp, 10 * damp, 100 * damp, 1000 * damp):
        damped = gram + torch.diag(strength * mean + silent * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()
    raise ValueError("gram: a finite positive semidefinite matrix needed, got one that damping does not make factorisable")
