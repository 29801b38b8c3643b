"""Frechet distance between two sets of images in the feature space of any network.

It is biased upwards by roughly 1/N, and by another amount for every network: figures compare only at the same number of images
and with the same features. Sources: Heusel et al. 2017, arXiv 1706.08500, eq. 6; on the bias arXiv 1911.07023.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def features(network: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 250) -> Tensor:
    """network(images) in batches, flattened: float [N, C, H, W] -> float64 [N, D]."""
    return torch.cat([network(batch).flatten(1).double() for batch in images.split(batch_size)])


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) for features [N, D] and [M, D], in float64.

    Raises ValueError when D differs, a set has fewer than 2 rows, or a value is not finite.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features: [N, D] and [M, D] with N, M >= 2 are needed, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = x.double(), y.double()
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features: finite values are needed, got NaN or infinity")
    cov_x, cov_y = (torch.cov(z.T).reshape(z.shape[1], z.shape[1]) for z in (x, y))
    # tr((C_x C_y)^(1/2)) = tr((C_x^(1/2) C_y C_x^(1/2))^(1/2)), whose argument is symmetric: no complex square root is needed.
    root_x = _symmetric_root(cov_x)
    cross = torch.linalg.eigvalsh(root_x @ cov_y @ root_x).clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross
    return max(0.0, float(distance))


def _symmetric_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
