"""Which form of a weight a CPU runs fastest, measured once per machine and size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..env import setting
from ..measure import load_guard
from .expanded import Expanded
from .fold_to_int8 import Int8Weight, fold_to_int8, rounded
from .int8_linear import int8_linear
from .matrix import random_matrix
from .remembered import remember

if TYPE_CHECKING:
    from .weight import LowBitWeight

# Compute dtype -> forms that may run in its place, each coarser or no finer than the one before.
CANDIDATES = {
    torch.float32: ("float32", "bfloat16", "int8"),
    torch.bfloat16: ("bfloat16", "float32", "int8"),
    torch.float16: ("float16", "float32"),
    torch.float64: ("float64",),
}
# A coarser form must save this much of the time, with few rows and with many.
SAVING = 0.1
FEW_ROWS, MANY_ROWS = 64, 1024
# Multiplications of one timed product; larger layers are timed with fewer rows.
LARGEST_PRODUCT = 2**29
WARM_UP, ROUNDS = 2, 7


class BusyMachine(RuntimeError):
    """Other processes keep the machine from being measured."""


def fastest_kind(weight: LowBitWeight) -> tuple[str, str]:
    """The kind to run ("float32", "bfloat16", "int8", ...) and why, in a sentence.

    Convolutions and layers with 16-bit activations keep the compute dtype: INT8 would round what their format does not.
    """
    own = str(weight.dtype).removeprefix("torch.")
    if weight.ndim == 4:
        return own, "convolutions run in the compute dtype"
    if weight.layer_format.activation is None:
        return own, "its format keeps 16-bit activations"
    if (forced := setting("HALFBYTE_CPU_KIND")) != "auto":
        return forced, f"HALFBYTE_CPU_KIND is {forced}"
    kinds = CANDIDATES[weight.dtype]
    if len(kinds) == 1:
        return own, f"nothing else computes {own}"
    n, k = weight.shape
    rank = fold_to_int8(weight.storage, weight.layer_format, (n, k)).rank if "int8" in kinds else 0
    key = f"linear {n} x {k} {f'rank {rank} ' if rank else ''}{own}"
    try:
        times = remember(key, lambda: measure_kinds(n, k, rank, weight.dtype), lambda found: is_times(found, kinds, len(row_counts(n, k))))
    except BusyMachine as busy:
        return own, f"not measured yet: {busy}"
    return choose(times), describe(times, n, k)


def row_counts(n: int, k: int) -> list[int]:
    """Rows to time with: few and many, or few alone where a product is large anyhow."""
    return sorted({FEW_ROWS, max(FEW_ROWS, min(MANY_ROWS, LARGEST_PRODUCT // (n * k)))})


def choose(times: dict[str, list[float]]) -> str:
    """The first kind, unless a later one beats it, and every one chosen before, at all row counts.

    times: kind -> seconds, one for each number of rows.
    """
    best, *others = times
    for kind in others:
        if all(new < (1 - SAVING) * old for new, old in zip(times[kind], times[best], strict=True)):
            best = kind
    return best


def describe(times: dict[str, list[float]], n: int, k: int) -> str:
    found = ", ".join(f"{kind} {' and '.join(f'{seconds * 1e6:.0f}' for seconds in row)} us" for kind, row in times.items())
    return f"measured at {n} x {k} with {' and '.join(map(str, row_counts(n, k)))} rows: {found}"


def is_times(found: Any, kinds: tuple[str, ...], counts: int) -> bool:
    if not isinstance(found, dict) or tuple(found) != kinds:
        return False
    if not all(isinstance(row, list) and len(row) == counts for row in found.values()):
        return False
    return all(isinstance(seconds, float) and seconds > 0 for row in found.values() for seconds in row)


def measure_kinds(n: int, k: int, rank: int, dtype: torch.dtype) -> dict[str, list[float]]:
    """Least seconds of every candidate for a product with a weight [n, k], with few and with many rows.

    rank: of the low-rank branch that INT8 runs beside its product; float forms have it merged. Raises BusyMachine when other processes would be measured along: a choice that is kept must not rest on such times.
    """
    if warning := load_guard():
        raise BusyMachine(warning)
    matrix = random_matrix(n, k, torch.empty(0))
    forms = {
        kind: int8_linear(with_branch(matrix, rank), dtype) if kind == "int8" else Expanded(matrix.to(getattr(torch, kind)), (), "")
        for kind in CANDIDATES[dtype]
    }
    bias = torch.zeros(n, dtype=dtype)
    times: dict[str, list[float]] = {kind: [] for kind in forms}
    for rows in row_counts(n, k):
        x = random_matrix(rows, k, matrix).to(dtype)
        for kind, seconds in least_seconds({kind: partial(form.linear, x, bias) for kind, form in forms.items()}).items():
            times[kind].append(seconds)
    return times


def with_branch(matrix: Tensor, rank: int) -> Int8Weight:
    n, k = matrix.shape
    factors = (random_matrix(k, rank, matrix), random_matrix(n, rank, matrix)) if rank else ()
    return rounded(matrix, torch.ones(k), *factors)


def least_seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    least = dict.fromkeys(calls, math.inf)
    with torch.no_grad():
        for turn in range(WARM_UP + ROUNDS):
            for kind, call in calls.items():
                start = time.perf_counter()
                call()
                # A clock too coarse for one call must not make it free.
                seconds = max(time.perf_counter() - start, 1e-9)
                if turn >= WARM_UP:
                    least[kind] = min(least[kind], seconds)
    return least
