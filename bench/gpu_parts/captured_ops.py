"""Every op of every backend captured in a CUDA graph, whose replay must give the bits of the call."""

from __future__ import annotations

from typing import Any

import torch
from halfbyte.ops import OPS, NoBackendError
from halfbyte.testing import BUILDERS, Shape, calls_of
from torch.utils._pytree import tree_map_only

from .context import Context
from .layer import backends_here, on_backend
from .simt import same_bits

SHAPE, DRY_SHAPE = Shape("small", 65, 128, 256), Shape("one_row", 1, 72, 64)


def capture_every_op(context: Context) -> dict[str, Any]:
    """Calls captured per op and backend. Raises AssertionError where a replay differs, and what capturing raises."""
    captured: dict[str, int] = {}
    for backend in ("reference",) if context.dry else backends_here(context.device):
        for name in BUILDERS:
            for args in calls_of(name, DRY_SHAPE if context.dry else SHAPE, torch.bfloat16, context.device).values():
                call = on_backend(backend, OPS[name], *args)
                try:
                    want = tree_map_only(torch.Tensor, torch.clone, call())
                except NoBackendError:
                    continue
                replayed = context.stopwatch.prepare(call)()
                assert same_bits(replayed, want), f"{name} on {backend}: its replay differs from its call"
                captured[f"{name} {backend}"] = captured.get(f"{name} {backend}", 0) + 1
    return {"calls captured": captured}
