"""Which lanes run next: all of them together, or at random some warps or blocks ahead of the others.

Together, threads that parted meet again as early as they can. A seed lets part of them run on, so that a role that comes too
early or too late is seen.
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

    def take(self, paths: dict[int, Array], resumes: Array | None) -> tuple[int, Array] | None:
        """Remove the lanes to run from paths (block -> lanes), the earliest block first; None where all are to wait.

        resumes: of each lane, the earliest block where one of its warp that waits will go on. Lanes beyond it wait for it, as a
        GPU brings a warp together again; None lets them go on alone.
        """
        if self.random is None and resumes is None:
            index = min(paths, default=None)
            return None if index is None else (index, paths.pop(index))
        if self.random is not None:
            if self.steps % STEPS_PER_DRAW == 0:
                self.draw()
            self.steps += 1
        return self.take_of(self.ahead, paths, resumes) or self.take_of(~self.ahead, paths, resumes)

    def take_of(self, lanes: Array, paths: dict[int, Array], resumes: Array | None) -> tuple[int, Array] | None:
        for index in sorted(paths):
            chosen = paths[index] & lanes
            if resumes is not None:
                chosen &= resumes > index
            if chosen.any():
                left = paths.pop(index) & ~chosen
                if left.any():
                    paths[index] = left
                return index, chosen
        return None
