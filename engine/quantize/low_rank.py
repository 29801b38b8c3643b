"""The low-rank branch: W ~ Q + up @ down^T, found by alternating an SVD of W - Q with rounding of what it leaves.

Source: SVDQuant (arXiv 2411.05007), iterated as in its reference implementation; here each round steps farther, with momentum
(heavy ball, Polyak 1964), which needs a third of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .subspace import Sum, randomised_svd

OVERSAMPLE = 8
# With codes held, a round of plain alternation is a gradient step of length 1 down the squared rounding error. Heavy ball is
# stable up to a step of 2 * (1 + momentum).
STEP, MOMENTUM = 2.0, 0.3


@dataclass(frozen=True)
class LowRank:
    """down [K, R], which multiplies the raw input, and up [N, R], both in the stored dtype."""

    down: Tensor
    up: Tensor

    @classmethod
    def empty(cls, columns: int, rows: int, like: Tensor, dtype: torch.dtype) -> LowRank:
        return cls(like.new_empty(columns, 0, dtype=dtype), like.new_empty(rows, 0, dtype=dtype))

    def factors(self, smooth_factor: Tensor) -> tuple[Tensor, Tensor]:
        """left [N, R] and right [K, R] in float32: left @ right^T is what the branch adds to the smoothed weight."""
        return self.up.float(), self.down.float() * smooth_factor.unsqueeze(1)

    def rest(self, weight: Tensor, smooth_factor: Tensor) -> Tensor:
        """What the branch leaves of a smoothed weight: float32 [N, K]."""
        left, right = self.factors(smooth_factor)
        return torch.addmm(weight, left, right.t(), alpha=-1)

    def apply(self, x: Tensor) -> Tensor:
        """x float32 [..., K] -> float32 [..., N]."""
        return x @ self.down.float() @ self.up.float().t()


@dataclass(frozen=True)
class Alternation:
    """The branch with the lowest error, the round it came from, counted from 1, and how many rounds there were."""

    branch: LowRank
    best_round: int
    rounds: int


def start_basis(columns: int, rank: int, seed: int, device: torch.device) -> Tensor:
    """A seeded Gaussian start for `decompose`, the same on every device: float32 [columns, rank + oversampling]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(columns, min(rank + OVERSAMPLE, columns), generator=generator).to(device)


def decompose(
    weight: Sum, rank: int, smooth_factor: Tensor, basis: Tensor, dtype: torch.dtype, rounds: int = 3
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
    error: Callable[[Tensor, Tensor, LowRank], float],
    iterations: int,
    patience: int,
    tolerance: float,
) -> Alternation:
    """Up to `iterations` rounds; stops when `patience` rounds in a row have not lowered the error by `tolerance` of it.

    weight: smoothed, float32 [N, K]; quantize: residual -> rounded residual; error: (rounded residual, residual minus that,
    branch) -> number. The first round is the plain SVD of the weight.
    """
    best, best_error, best_round = None, float("inf"), 0
    goal, goal_round = float("inf"), 0
    target, before = Sum.of(weight), None
    for index in range(1, iterations + 1):
        branch, basis = decompose(target, rank, smooth_factor, basis, dtype, rounds=3 if index == 1 else 1)
        residual = branch.rest(weight, smooth_factor)
        rounded = quantize(residual)
        lost = residual.sub_(rounded)
        current = error(rounded, lost, branch)
        if best is None or current < best_error:
            best, best_error, best_round = branch, current, index
        if current < goal:
            goal, goal_round = current * (1 - tolerance), index
        elif index - goal_round >= patience:
            break
        target, before = _next_target(lost, branch.factors(smooth_factor), before), branch.factors(smooth_factor)
    return Alternation(best, best_round, index)


def _next_target(lost: Tensor, now: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None) -> Sum:
    """now + STEP * lost + MOMENTUM * (now - before), where now and before are products left @ right^T."""
    left, right = now
    if before is None:
        return Sum(lost, left, right, STEP)
    left = torch.cat([(1 + MOMENTUM) * left, -MOMENTUM * before[0]], 1)
    return Sum(lost, left, torch.cat([right, before[1]], 1), STEP)
