"""The low-rank branch: W ~ Q + up @ down^T, found by alternating a randomised SVD of W - Q with rounding of what it leaves.

Source: SVDQuant (arXiv 2411.05007), iterated as in its reference implementation; randomised SVD by subspace iteration
(Halko, Martinsson and Tropp 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OVERSAMPLE = 8


@dataclass(frozen=True)
class LowRank:
    """down [K, R], which multiplies the raw input, and up [N, R], both in the stored dtype."""

    down: Tensor
    up: Tensor

    @classmethod
    def empty(cls, columns: int, rows: int, like: Tensor, dtype: torch.dtype) -> LowRank:
        return cls(like.new_empty(columns, 0, dtype=dtype), like.new_empty(rows, 0, dtype=dtype))

    def product(self, smooth_factor: Tensor) -> Tensor:
        """What the branch adds to the smoothed weight: float32 [N, K]."""
        return self.up.float() @ (self.down.float() * smooth_factor.unsqueeze(1)).t()

    def apply(self, x: Tensor) -> Tensor:
        """x float32 [..., K] -> float32 [..., N]."""
        return x @ self.down.float() @ self.up.float().t()


def start_basis(columns: int, rank: int, seed: int, device: torch.device) -> Tensor:
    """A seeded Gaussian start for `randomised_svd`, the same on every device: float32 [columns, rank + oversampling]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(columns, min(rank + OVERSAMPLE, columns), generator=generator).to(device)


def randomised_svd(matrix: Tensor, rank: int, basis: Tensor, rounds: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """The leading `rank` singular directions: left [N, R], right [K, R], each times the root of the singular values, and a basis.

    basis: [K, R + oversampling], a start; the returned one continues from here on a similar matrix, where one round is enough.
    """
    for _ in range(rounds):
        left = torch.linalg.qr(matrix @ basis).Q
        basis = torch.linalg.qr(matrix.t() @ left).Q
    u, s, vh = torch.linalg.svd(matrix @ basis, full_matrices=False)
    root = s[:rank].sqrt()
    right = basis @ vh.t()
    return u[:, :rank] * root, right[:, :rank] * root, right


def decompose(
    weight: Tensor, rank: int, smooth_factor: Tensor, basis: Tensor, dtype: torch.dtype, rounds: int = 2
) -> tuple[LowRank, Tensor]:
    """The best branch of that rank for a smoothed weight [N, K], in its stored dtype, and the basis to continue from."""
    left, right, basis = randomised_svd(weight, rank, basis, rounds)
    return LowRank((right / smooth_factor.unsqueeze(1)).to(dtype), left.to(dtype)), basis


def alternate(
    weight: Tensor,
    rank: int,
    smooth_factor: Tensor,
    basis: Tensor,
    dtype: torch.dtype,
    quantize: Callable[[Tensor], Tensor],
    error: Callable[[Tensor, LowRank], float],
    iterations: int,
    patience: int,
) -> tuple[LowRank, int]:
    """The branch with the lowest error over `iterations` rounds, and the round it came from.

    weight: smoothed, float32 [N, K]; quantize: residual -> rounded residual; error: (rounded residual, branch) -> number.
    Stops after `patience` rounds in a row without a new best. The first round is the plain SVD of the weight.
    """
    rounded = torch.zeros_like(weight)
    best, best_error, best_round = None, float("inf"), 0
    for round_index in range(iterations):
        branch, basis = decompose(weight - rounded, rank, smooth_factor, basis, dtype, rounds=1 if round_index else 2)
        rounded = quantize(weight - branch.product(smooth_factor))
        current = error(rounded, branch)
        if best is None or current < best_error:
            best, best_error, best_round = branch, current, round_index
        elif round_index - best_round >= patience:
            break
    return best, best_round
