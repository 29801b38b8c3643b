"""Which form of a weight a CPU runs fastest, measured once per machine and size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..env import setting
from ..measure import load_guard
from .expanded import Expanded
from .int8_linear import fold_matrix
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
    n, k = (bucket(size) for size in weight.shape)
    key = f"linear {n} x {k} {own}"
    times = remember(key, lambda: measure_kinds(n, k, weight.dtype), lambda found: is_times(found, kinds, len(row_counts(n, k))))
    return choose(times), describe(times, n, k)


def row_counts(n: int, k: int) -> list[int]:
    """Rows to time with: few and many, or few alone where a product is large anyhow."""
    return sorted({FEW_ROWS, max(FEW_ROWS, min(MANY_ROWS, LARGEST_PRODUCT // (n * k)))})


def bucket(size: int) -> int:
    """The nearest power of two."""
    return 2 ** round(math.log2(size))


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


def measure_kinds(n: int, k: int, dtype: torch.dtype) -> dict[str, list[float]]:
    """Least seconds of every candidate for a product with a weight [n, k], with few and with many rows.

    On a busy machine the CPU time of one thread is compared: wall time would be that of the others.
    """
    matrix = random_matrix(n, k, torch.empty(0))
    forms = {
        kind: fold_matrix(matrix, torch.ones(k), (), "") if kind == "int8" else Expanded(matrix.to(getattr(torch, kind)), (), "")
        for kind in CANDIDATES[dtype]
    }
    bias = torch.zeros(n, dtype=dtype)
    times: dict[str, list[float]] = {kind: [] for kind in forms}
    threads = torch.get_num_threads()
    quiet = load_guard() is None
    try:
        torch.set_num_threads(threads if quiet else 1)
        for rows in row_counts(n, k):
            x = random_matrix(rows, k, matrix).to(dtype)
            least = least_seconds({kind: partial(form.linear, x, bias) for kind, form in forms.items()}, quiet)
            for kind, seconds in least.items():
                times[kind].append(seconds)
    finally:
        torch.set_num_threads(threads)
    return times


def least_seconds(calls: dict[str, Callable[[], Any]], quiet: bool) -> dict[str, float]:
    clock = time.perf_counter if quiet else time.thread_time
    least = dict.fromkeys(calls, math.inf)
    with torch.no_grad():
        for turn in range(WARM_UP + ROUNDS):
            for kind, call in calls.items():
                start = clock()
                call()
                # A clock too coarse for one call must not make it free.
                seconds = max(clock() - start, 1e-9)
                if turn >= WARM_UP:
                    least[kind] = min(least[kind], seconds)
    return least
