"""Orders in which the host shim runs the threads of a kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# (seed, run_to_barrier): half switch warps at every rendezvous, half run each warp to its barrier, which alone finds refill races.
SCHEDULES = tuple((seed, seed % 2 == 1) for seed in range(20))


@contextlib.contextmanager
def schedule(seed: int, run_to_barrier: bool, races: bool = False) -> Iterator[None]:
    """Run the launches of this context in one order; races: also look for conflicting accesses, slowly. Needs the shim's build."""
    from .. import _simt

    _simt.configure(seed=seed, run_to_barrier=run_to_barrier, races=races)
    try:
        yield
    finally:
        _simt.configure()
