"""Uniform samples of a stream, the same for the same stream: every item draws a random key, the smallest keys stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HELD_OUT_EVERY = 4


def seed_of(name: str) -> int:
    """A seed that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class RowReservoir:
    """Keeps `capacity` rows of all that are offered, a quarter of them held out, on the CPU in the dtype they came in.

    Every fourth sample of a batch is held out, so that no fitted row shares its image with a held-out one; rows of batches under
    four samples are held out one by one.
    """

    def __init__(self, capacity: int, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        held_out = capacity // HELD_OUT_EVERY
        self.parts = [_SmallestKeys(capacity - held_out), _SmallestKeys(held_out)]

    def offer(self, count: int, per_sample: int, gather: Callable[[Tensor], Tensor]) -> None:
        """count: rows on offer, per_sample in a row from one sample; gather: row numbers -> rows [n, K]."""
        keys = torch.rand(count, generator=self.generator)
        if count // per_sample >= HELD_OUT_EVERY:
            held_out = torch.arange(count) // per_sample % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        else:
            held_out = torch.rand(count, generator=self.generator) < 1 / HELD_OUT_EVERY
        for part, mask in zip(self.parts, (~held_out, held_out), strict=True):
            part.offer(keys, mask, gather)

    def rows(self) -> tuple[Tensor, Tensor]:
        """The rows to fit on and the rows held out: [M, K] each."""
        fit, held_out = (part.rows() for part in self.parts)
        return fit, held_out


class _SmallestKeys:
    def __init__(self, capacity: int):
        self.capacity, self.limit = capacity, float("inf")
        self.keys: list[Tensor] = []
        self.kept: list[Tensor] = []

    def offer(self, keys: Tensor, mask: Tensor, gather: Callable[[Tensor], Tensor]) -> None:
        index = (mask & (keys < self.limit)).nonzero().squeeze(1)
        # Of one large batch at most `capacity` rows can stay; the others are never gathered.
        index = index[keys[index].argsort(stable=True)[: self.capacity]]
        if not len(index):
            return
        self.keys.append(keys[index])
        self.kept.append(gather(index).detach().cpu())
        if sum(map(len, self.keys)) > 2 * self.capacity:
            self._compact()

    def _compact(self) -> None:
        keys, rows = torch.cat(self.keys), torch.cat(self.kept)
        order = keys.argsort(stable=True)[: self.capacity]
        self.keys, self.kept = [keys[order]], [rows[order]]
        if len(order) == self.capacity:
            self.limit = float(keys[order[-1]])

    def rows(self) -> Tensor:
        if not self.kept:
            return torch.empty(0, 0)
        self._compact()
        return self.kept[0]


class CallReservoir:
    """Keeps a few complete calls of a module: at most `capacity`, and fewer when they are large."""

    def __init__(self, capacity: int, token_limit: int, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.capacity, self.token_limit = capacity, token_limit
        self.kept: list[tuple[float, Any]] = []

    def offer(self, tokens: int, take: Callable[[], Any]) -> None:
        """tokens: size of the call; take: returns a copy of it, called only when it stays for now."""
        self.capacity = min(self.capacity, max(self.token_limit // tokens, 1))
        key = float(torch.rand((), generator=self.generator))
        if len(self.kept) >= self.capacity and key >= self.kept[self.capacity - 1][0]:
            return
        self.kept = sorted([*self.kept, (key, take())], key=lambda entry: entry[0])[: self.capacity]

    def calls(self) -> list[Any]:
        return [call for _, call in self.kept]
