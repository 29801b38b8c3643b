"""Smooth, shift and quantize activations, and project them onto the low-rank branch, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import fp8, int4, int8, nvfp4, pack_nibbles
from .checks import FLOATS, expect, expect_dim, expect_divides, expect_one_of
from .operands import CODE_DTYPE, CODES_PER_ELEMENT, GROUP_SIZE, padded_rows
from .registry import Op


@Op
def quantize_act(
    x: Tensor,
    smooth: Tensor | None,
    proj_down: Tensor | None,
    format: str,
    shift: float = 0.0,
    unsigned: bool = False,
    segments: int = 1,
    four_over_six: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize (x + shift) / smooth, computed in float32, and multiply the raw x by proj_down.

    x [M, K], smooth [K], proj_down [K, R]; format "int4", "nvfp4", "int8" or "fp8".
    Returns qx (int8 [M, K/2] packed for 4 bits; int8 or e4m3 [M, K]); ascales (x's dtype [K/64, Mp] for int4, e4m3 [K/16, Mp]
    for nvfp4, float32 [segments, Mp] for 8 bits; padding columns are 1); low_rank_act (x's dtype [M, R], [M, 0] without
    proj_down). The outer scale of nvfp4 activations is 1; another one is folded in by multiplying both smooth and wtscale by it.
    """
    y = x.float() + shift if shift else x.float()
    if smooth is not None:
        y = y / smooth.float()
    if format == "int4":
        codes, scales = int4.quantize(y, unsigned, x.dtype)
    elif format == "nvfp4":
        codes, scales, _ = nvfp4.quantize(y, torch.ones((), device=x.device), four_over_six)
    else:
        codes, scales = {"int8": int8, "fp8": fp8}[format].quantize(y, segments)
    qx = pack_nibbles(codes) if CODES_PER_ELEMENT[format] == 2 else codes
    ascales = torch.ones(scales.shape[1], padded_rows(x.shape[0]), device=x.device).to(scales.dtype)
    ascales[:, : x.shape[0]] = scales.t()
    low_rank_act = x.new_empty(x.shape[0], 0) if proj_down is None else (x.float() @ proj_down.float()).to(x.dtype)
    return qx, ascales, low_rank_act


@quantize_act.set_fake
def fake(x, smooth, proj_down, format, shift=0.0, unsigned=False, segments=1, four_over_six=False):
    rows, k = x.shape
    groups = k // GROUP_SIZE[format] if format in GROUP_SIZE else segments
    scale_dtype = {"int4": x.dtype, "nvfp4": torch.float8_e4m3fn}.get(format, torch.float32)
    return (
        x.new_empty((rows, k // CODES_PER_ELEMENT[format]), dtype=CODE_DTYPE[format]),
        x.new_empty((groups, padded_rows(rows)), dtype=scale_dtype),
        x.new_empty((rows, 0 if proj_down is None else proj_down.shape[1])),
    )


@quantize_act.set_check
def check(x, smooth, proj_down, format, shift=0.0, unsigned=False, segments=1, four_over_six=False):
    expect_dim("x", x, 2, *FLOATS)
    check_columns(x.shape[1], smooth, proj_down, format, shift, unsigned, segments, four_over_six)


def check_columns(k, smooth, proj_down, format, shift=0.0, unsigned=False, segments=1, four_over_six=False):
    """Check the arguments that follow x, knowing only its K columns."""
    expect_one_of("format", format, tuple(CODE_DTYPE))
    expect("smooth", smooth, (k,), *FLOATS)
    if proj_down is not None:
        expect("proj_down", proj_down, (k, proj_down.shape[-1]), *FLOATS)
    if format in GROUP_SIZE:
        expect_divides("x", k, GROUP_SIZE[format], "K")
    if unsigned and format != "int4":
        raise ValueError(f"unsigned: only int4 activations can be unsigned, got format {format!r}")
    if four_over_six and format != "nvfp4":
        raise ValueError(f"four_over_six: only nvfp4 has it, got format {format!r}")
    if segments < 1 or k % segments or (segments > 1 and format in GROUP_SIZE):
        raise ValueError(f"segments: a divisor of K {k} needed, and 1 for the 4-bit formats, got {segments} with {format!r}")
