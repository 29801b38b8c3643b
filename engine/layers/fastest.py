"""Which form of a weight a CPU runs fastest, measured once per machine and size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..env import setting
from ..formats import int8
from ..measure import load_guard
from .expanded import Expanded
from .fold import FoldedWeight
from .int8_convolution import int8_convolution, reason_against_int8
from .int8_linear import int8_linear
from .matrix import from_matrix, random_matrix
from .merged_branch import merges_branch
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
# Of the images to time a convolution with.
IMAGE_SIDE = 8
# Multiplications of one timed product; larger layers are timed with fewer rows.
LARGEST_PRODUCT = 2**29
WARM_UP, ROUNDS = 2, 7


class BusyMachine(RuntimeError):
    """Other processes keep the machine from being measured."""


def fastest_kind(weight: LowBitWeight) -> tuple[str, str]:
    """The kind to run ("float32", "bfloat16", "int8", ...) and why, in a sentence.

    Layers with 16-bit activations keep the compute dtype: INT8 would round what their format does not.
    """
    own = str(weight.dtype).removeprefix("torch.")
    if weight.layer_format.activation is None:
        return own, "its format keeps 16-bit activations"
    if weight.ndim == 4:
        return fastest_convolution(weight, own)
    if (forced := setting("HALFBYTE_CPU_KIND")) != "auto":
        return forced, f"HALFBYTE_CPU_KIND is {forced}"
    kinds = CANDIDATES[weight.dtype]
    if len(kinds) == 1:
        return own, f"nothing else computes {own}"
    n, k = weight.shape
    beside = "int8" in kinds and not merges_branch(weight.storage, weight.layer_format, (n, k), "int8")
    rank = weight.layer_format.rank if beside else 0
    key = f"linear {n} x {k} {f'rank {rank} ' if rank else ''}{own}"
    counts = row_counts(n, k)
    return measured(key, partial(measure_kinds, n, k, rank, weight.dtype), kinds, f"{n} x {k} with {in_words(counts)} rows", len(counts))


def fastest_convolution(weight: LowBitWeight, own: str) -> tuple[str, str]:
    """A convolution runs in its compute dtype or in INT8."""
    if reason := reason_against_int8(weight):
        return own, reason
    if (forced := setting("HALFBYTE_CPU_KIND")) != "auto":
        return (forced if forced == "int8" else own), f"HALFBYTE_CPU_KIND is {forced}"
    shape = tuple(weight.shape)
    size, counts = " x ".join(map(str, shape)), image_counts(shape)
    where = f"{size} with {in_words(counts)} images of {IMAGE_SIDE} x {IMAGE_SIDE}"
    measure = partial(measure_convolution, shape, weight.dtype)
    return measured(f"convolution {size} {own}", measure, (own, "int8"), where, len(counts))


def measured(key: str, measure: Callable[[], dict[str, list[float]]], kinds: tuple[str, ...], where: str, counts: int) -> tuple[str, str]:
    """The kind to run and why: `kinds` in the order of CANDIDATES, measured with `counts` amounts of work as `where` says."""
    try:
        times = remember(key, measure, lambda found: is_times(found, kinds, counts))
    except BusyMachine as busy:
        return kinds[0], f"not measured yet: {busy}"
    return choose(times), describe(times, where)


def row_counts(n: int, k: int) -> list[int]:
    """Rows to time with: few and many, or few alone where a product is large anyhow."""
    return sorted({FEW_ROWS, max(FEW_ROWS, min(MANY_ROWS, LARGEST_PRODUCT // (n * k)))})


def image_counts(shape: tuple[int, ...]) -> list[int]:
    """Images to time a convolution with, whose pixels are as many as the rows of a linear layer would be."""
    n, *k = shape
    return sorted({rows // IMAGE_SIDE**2 for rows in row_counts(n, math.prod(k))})


def choose(times: dict[str, list[float]]) -> str:
    """The first kind, unless a later one beats it, and every one chosen before, at all row counts.

    times: kind -> seconds, one for each number of rows.
    """
    best, *others = times
    for kind in others:
        if all(new < (1 - SAVING) * old for new, old in zip(times[kind], times[best], strict=True)):
            best = kind
    return best


def describe(times: dict[str, list[float]], where: str) -> str:
    found = ", ".join(f"{kind} {in_words(f'{seconds * 1e6:.0f}' for seconds in row)} us" for kind, row in times.items())
    return f"measured at {where}: {found}"


def in_words(items: Iterable[Any]) -> str:
    return " and ".join(map(str, items))


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


def measure_convolution(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, list[float]]:
    """Least seconds in dtype and in INT8 of a convolution that keeps the size of its images, with few and with many of them.

    Raises BusyMachine as `measure_kinds` does.
    """
    if warning := load_guard():
        raise BusyMachine(warning)
    n, channels, *kernel = shape
    matrix = random_matrix(n, channels * math.prod(kernel), torch.empty(0))
    forms = {
        str(dtype).removeprefix("torch."): Expanded(from_matrix(matrix, shape).to(dtype), ()),
        "int8": int8_convolution(with_branch(matrix, 0), shape, dtype),
    }
    bias, padding = torch.zeros(n, dtype=dtype), [side // 2 for side in kernel]
    times: dict[str, list[float]] = {kind: [] for kind in forms}
    for images in image_counts(shape):
        pixels = random_matrix(images * IMAGE_SIDE**2, channels, matrix)
        x = pixels.reshape(images, channels, IMAGE_SIDE, IMAGE_SIDE).to(dtype)
        calls = {kind: partial(form.conv2d, x, bias, 1, padding, 1) for kind, form in forms.items()}
        for kind, seconds in least_seconds(calls).items():
            times[kind].append(seconds)
    return times


def with_branch(matrix: Tensor, rank: int) -> FoldedWeight:
    n, k = matrix.shape
    codes, scales = int8.quantize(matrix)
    factors = (random_matrix(k, rank, matrix), random_matrix(n, rank, matrix)) if rank else ()
    return FoldedWeight(codes, scales.squeeze(-1), torch.ones(k), *factors)


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
