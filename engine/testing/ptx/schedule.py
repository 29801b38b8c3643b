"""Which lanes run next: all of them together, or at random some warps or blocks ahead of the others.

Together, threads that parted meet again as early as they can. A seed lets part of them run on until they wait, so that a role that
comes too early or too late is seen.
"""

from __future__ import annotations

import numpy as np

from .lanes import WARP
from .values import Array

STEPS_PER_DRAW = 32


class Schedule:
    """Of a batch. seed: None for all lanes together."""

    def __init__(self, lanes: int, threads: int, seed: int | None) -> None:
        self.lanes, self.threads = lanes, threads
        self.random = None if seed is None else np.random.default_rng(seed)
        self.ahead = np.ones(lanes, bool)
        self.steps = 0

    def draw(self) -> None:
        """Put others ahead."""
        group = WARP if self.random.random() < 0.5 else self.threads
        self.ahead = (self.random.random(self.lanes // group) < 0.5).repeat(group)

    def take(self, paths: dict[int, Array]) -> tuple[int, Array]:
        """Remove the lanes to run from paths (block -> lanes), the earliest block first."""
        if self.random is not None:
            if self.steps % STEPS_PER_DRAW == 0:
                self.draw()
            self.steps += 1
            for index in sorted(paths):
                chosen = paths[index] & self.ahead
                if chosen.any():
                    left = paths.pop(index) & ~self.ahead
                    if left.any():
                        paths[index] = left
                    return index, chosen
        index = min(paths)
        return index, paths.pop(index)
