"""The leading singular directions of a large matrix, from a few products with it.

Source: randomised subspace iteration (Halko, Martinsson and Tropp 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Directions weaker than this share of the strongest are rounding errors of float32 products.
NOISE = 1e-7


@dataclass(frozen=True)
class Sum:
    """scale * dense + left @ right^T, which is never formed: dense [N, K], left [N, S], right [K, S], all float32."""

    dense: Tensor
    left: Tensor
    right: Tensor
    scale: float = 1.0

    @classmethod
    def of(cls, dense: Tensor) -> Sum:
        """The matrix itself."""
        return cls(dense, dense.new_empty(dense.shape[0], 0), dense.new_empty(dense.shape[1], 0))

    def __matmul__(self, x: Tensor) -> Tensor:
        """x [K, C] -> [N, C]."""
        return torch.addmm(self.left @ (self.right.t() @ x), self.dense, x, alpha=self.scale)

    def t(self) -> Sum:
        return Sum(self.dense.t(), self.right, self.left, self.scale)


def tall_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of [N, C] with C small, by its Gram matrix in float64: left [N, C], values [C] from the largest, right [C, C].

    The eigenvalues of a C x C matrix take a GPU's solver milliseconds and the host a fraction of one. Directions under NOISE come
    out shorter than 1.
    """
    wide = matrix.double()
    squares, right = torch.linalg.eigh((wide.t() @ wide).cpu())
    values, right = squares.flip(0).clamp_(min=0).sqrt_(), right.flip(1)
    inverse = 1 / values.clamp(min=max(NOISE * float(values[0]), 1e-30))
    left = wide @ (right * inverse).to(matrix.device)
    return left.float(), values.float().to(matrix.device), right.float().to(matrix.device)


def randomised_svd(matrix: Sum, rank: int, basis: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """The leading `rank` singular directions: left [N, R], right [K, R], each times the root of the singular values, and a basis.

    basis: [K, R + oversampling], a start; the returned one continues from here on a similar matrix, where one round is enough.
    """
    for _ in range(rounds):
        left, _, _ = tall_svd(matrix @ basis)
        basis, values, rotation = tall_svd(matrix.t() @ left)
    root = values[:rank].sqrt()
    return (left @ rotation)[:, :rank] * root, basis[:, :rank] * root, basis
