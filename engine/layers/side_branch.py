"""Users' adapters fused into a low-bit weight: low-rank terms beside it, so that the same update subtracted leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .matrix import random_matrix

MAX_TERMS = 8
# Up to this size an exact SVD is cheaper than looking for the rank.
SMALL = 256


@dataclass(frozen=True)
class SideTerm:
    """up [N, R] @ down [R, K], or up [N, K] alone when factors would not be smaller; float32. error: relative, of the factors."""

    up: Tensor
    down: Tensor | None
    error: float

    @property
    def matrix(self) -> Tensor:
        return self.up if self.down is None else self.up @ self.down

    def map(self, function: Callable[[Tensor], Tensor]) -> SideTerm:
        return SideTerm(function(self.up), None if self.down is None else function(self.down), self.error)


def rounding_error(dtype: torch.dtype) -> float:
    """Relative error that a matrix product rounded to dtype may carry; never below what float32 factors reach."""
    return max(1e-6, torch.finfo(dtype).eps / 2)


def factorize(delta: Tensor, error: float) -> SideTerm:
    """The lowest-rank factors of delta [N, K] within a relative Frobenius error, or delta itself.

    Larger matrices are projected on a random range that doubles until the error is met. Source: arXiv 0909.4061, algorithm 4.2.
    """
    delta = delta.float()
    n, k = delta.shape
    norm = torch.linalg.vector_norm(delta)
    dense_rank = n * k / (n + k)
    width = min(n, k) if min(n, k) <= SMALL else 32
    while width < dense_rank or width == min(n, k):
        basis = None
        core = delta
        if width < min(n, k):
            basis = torch.linalg.qr(delta @ random_matrix(k, width, delta)).Q
            core = basis.t() @ delta
            if torch.linalg.vector_norm(delta - basis @ core) > error * norm:
                width *= 2
                continue
        # In float32 the factors of a flat matrix can be off by more than the error that is asked for.
        u, s, v = (factor.float() for factor in torch.linalg.svd(core.double(), full_matrices=False))
        tail = s.square().flip(0).cumsum(0).flip(0).sqrt()
        rank = int((tail > error * norm).sum())
        if rank >= dense_rank:
            break
        u = u[:, :rank] * s[:rank]
        return SideTerm((u if basis is None else basis @ u).contiguous(), v[:rank].contiguous(), error)
    return SideTerm(delta.clone(), None, error)


def add_delta(terms: tuple[SideTerm, ...], delta: Tensor, error: float) -> tuple[SideTerm, ...]:
    """The terms after adding delta [N, K]; a delta that undoes one of them removes it, which restores exactly what was before.

    error: relative rounding error of delta. Raises ValueError when delta is not finite.
    """
    delta = delta.detach().float()
    norm = torch.linalg.vector_norm(delta)
    if not torch.isfinite(norm):
        raise ValueError("weight: a finite update needed, got one with NaN or infinity")
    if norm == 0:
        return terms
    # The latest first: two equal adapters leave in the order in which PEFT unfuses them.
    for index in reversed(range(len(terms))):
        # Both sides were rounded on their own way here, and 1e-4 tells no two adapters apart that a float32 user could.
        if torch.linalg.vector_norm(terms[index].matrix + delta) <= max(1e-4, 2 * (error + terms[index].error)) * norm:
            return terms[:index] + terms[index + 1 :]
    terms = (*terms, factorize(delta, error))
    if len(terms) <= MAX_TERMS:
        return terms
    error = max(term.error for term in terms)
    total = sum((term.matrix for term in terms[1:]), terms[0].matrix)
    return (factorize(total, error),)
