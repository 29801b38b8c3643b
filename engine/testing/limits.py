"""Error limits per number format, in one table, and the comparison that reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Limit:
    """Relative RMS errors.

    agreement: between two implementations of one op, whose sums may run in another order. rounding: of quantize and dequantize
    against the float input, for normally distributed values.
    """

    agreement: float
    rounding: float


# A result in a quantized format differs where the order of a sum moves a value across a tie: rarely, but by a whole step.
LIMITS = {
    "float32": Limit(agreement=5e-6, rounding=0.0),
    "float16": Limit(agreement=4e-4, rounding=4e-4),
    "bfloat16": Limit(agreement=3e-3, rounding=3e-3),
    "int8": Limit(agreement=4e-3, rounding=0.012),
    "fp8": Limit(agreement=6e-3, rounding=0.03),
    "int4": Limit(agreement=1.5e-2, rounding=0.12),
    "nvfp4": Limit(agreement=1.5e-2, rounding=0.11),
}

# (stored, folded to) -> what folding adds: relative RMS of the folded weight against the stored one, without a low-rank branch.
# The first is reached by normally distributed weights; the second by heavy tails (Student's t, 5 degrees of freedom).
FOLD_LIMITS = {
    ("int4", "int8"): (0.009, 0.018),
    ("nvfp4", "int8"): (0.010, 0.020),
    ("nvfp4", "fp8"): (0.024, 0.025),
}


def format_name(dtype: torch.dtype) -> str:
    """The key of a float dtype in LIMITS."""
    return str(dtype).removeprefix("torch.")


def relative_rms(got: Tensor, want: Tensor) -> float:
    """RMS of the difference over RMS of `want`, in float64; infinite when `got` has a NaN or an infinity that `want` has not."""
    got, want = got.double(), want.double()
    if not torch.equal(got.isfinite(), want.isfinite()):
        return float("inf")
    if not got.numel():
        return 0.0
    error, size = (got - want).nan_to_num(0).square().mean().sqrt(), want.nan_to_num(0).square().mean().sqrt()
    return (error / size).item() if size else (0.0 if error == 0 else float("inf"))


def assert_close(name: str, got: Tensor, want: Tensor, format: str) -> None:
    """Raise AssertionError when shapes differ or the relative RMS error exceeds the agreement limit of the format."""
    if got.shape != want.shape:
        raise AssertionError(f"{name}: shape {list(want.shape)} needed, got {list(got.shape)}")
    if (error := relative_rms(got, want)) > (limit := LIMITS[format].agreement):
        raise AssertionError(f"{name}: relative RMS error {error:.3g} is over the {format} limit {limit:.3g}")


@contextlib.contextmanager
def poisoned_empty() -> Iterator[None]:
    """Fill every fresh uninitialised tensor with NaN (floats) or the largest integer, so that an output left unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled
