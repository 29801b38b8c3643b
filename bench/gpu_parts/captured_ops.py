"""Every op of a backend captured in a CUDA graph, whose replay must give the bits of the call."""

from __future__ import annotations

from typing import Any

import torch
from halfbyte.ops import OPS, NoBackendError
from halfbyte.testing import BUILDERS, ODD_SHAPES, Shape, calls_of
from torch.utils._pytree import tree_map_only

from .candidates import CALL_SECONDS
from .context import Context
from .layer import on_backend
from .simt import same_bits

# Of the conformance run, so that Triton has its kernels compiled already.
SHAPE = next(shape for shape in ODD_SHAPES if shape.name == "tile_minus_one")
DRY_SHAPE = Shape("one_row", 1, 72, 64)


def capture_every_op(context: Context, backend: str) -> dict[str, Any]:
    """Calls captured per op. Raises AssertionError where a replay differs, and what capturing raises."""
    captured: dict[str, int] = {}
    for name in BUILDERS:
        if context.reason_against(f"{backend} {name}"):
            continue
        for args in calls_of(name, DRY_SHAPE if context.dry else SHAPE, torch.bfloat16, context.device).values():
            call = on_backend(backend, OPS[name], *args)
            with context.candidate(f"{backend} {name}", CALL_SECONDS):
                try:
                    want = tree_map_only(torch.Tensor, torch.clone, call())
                except NoBackendError:
                    continue
                replayed = context.stopwatch.prepare(call)()
                assert same_bits(replayed, want), f"{name} on {backend}: its replay differs from its call"
            captured[name] = captured.get(name, 0) + 1
    return {"calls captured": captured}
