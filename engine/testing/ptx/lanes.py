"""Which lanes an instruction runs on."""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .values import Array

WARP = 32


class Active:
    """The lanes an instruction runs on. where: for masked writes; lanes: for indexing."""

    def __init__(self, mask: Array) -> None:
        self.mask = mask
        self.full = bool(mask.all())
        self.where: Array | bool = True if self.full else mask
        self.lanes: Array | slice = slice(None) if self.full else np.flatnonzero(mask)

    def restrict(self, condition: Array) -> Active | None:
        """The active lanes where condition holds, None when there are none."""
        mask = self.mask & condition
        if not mask.any():
            return None
        return Active(mask)

    def whole_warps(self, what: str) -> None:
        """Raises LaneError naming a lane that came without the rest of its warp."""
        if not self.full:
            warps = self.mask.reshape(-1, WARP)
            alone = warps.any(1) != warps.all(1)
            if alone.any():
                lane = int(np.argmax(self.mask & alone.repeat(WARP)))
                count = int(warps[lane // WARP].sum())
                raise LaneError(lane, f"divergent {what}: {count} of the {WARP} threads of its warp are here")
