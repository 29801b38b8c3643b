"""Calls of the quantize kernels: every format, held and streamed rows, ragged ends, extremes, and the norms before them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..inputs import Inputs
from .call import Call, Choice, OpCall, Refusal

OPERANDS = ("x", "smooth", "proj_down", "qx", "ascales", "low_rank_act")
HALF, BFLOAT = torch.float16, torch.bfloat16
# format, shift, unsigned, segments, four_over_six
INT4, UINT4, NVFP4, FOUR_OVER_SIX = ("int4",), ("int4", 0.171875, True), ("nvfp4",), ("nvfp4", 0.0, False, 1, True)
INT8, INT8_SEGMENTS, FP8, FP8_SEGMENTS = ("int8",), ("int8", -0.25, False, 5), ("fp8",), ("fp8", 0.0, False, 4)


# Rows, columns, rank, segments, whether codes have four bits, whether rows have statistics.
TILES = {
    (5, 320, 32, 1, False, True): "1 blocks of 16 rows, 5 warps, 5 units of 64 columns, 2 passes, rows held, 10688",
    (5, 320, 36, 1, False, True): "1 blocks of 16 rows, 5 warps, 5 units of 64 columns, 2 passes, rows streamed, 31168",
    (64, 320, 0, 1, True, True): "4 blocks of 16 rows, 5 warps, 5 units of 64 columns, 1 passes, rows held, 10688",
    (2047, 3136, 0, 1, True, False): "128 blocks of 16 rows, 8 warps, 49 units of 64 columns, 1 passes, rows streamed, 49152",
    (2048, 3136, 96, 1, True, False): "64 blocks of 32 rows, 12 warps, 49 units of 64 columns, 3 passes, rows streamed, 98304",
    # As much shared memory as there may be, held and streamed, and a little more.
    (5, 3072, 32, 6, False, False): "1 blocks of 16 rows, 8 warps, 48 units of 64 columns, 2 passes, rows held, 101376",
    (5, 3200, 32, 10, False, False): "1 blocks of 16 rows, 8 warps, 50 units of 64 columns, 2 passes, rows streamed, 52352",
    (4096, 1536, 64, 2, False, False): "128 blocks of 32 rows, 12 warps, 24 units of 64 columns, 2 passes, rows streamed, 101376",
    (4096, 1536, 64, 3, False, False): "128 blocks of 32 rows, 12 warps, 24 units of 64 columns, 2 passes, rows streamed, 101376",
    (4096, 6144, 64, 8, False, False): "128 blocks of 32 rows, 11 warps, 96 units of 64 columns, 2 passes, rows streamed, 101376",
}


def companions(inputs: Inputs, k: int, rank: int, smooth: bool = True) -> tuple[Tensor | None, Tensor | None]:
    return inputs.positive(k) if smooth else None, inputs.normal(k, rank, scale=k**-0.5) if rank else None


def quantize(name: str, dtype: torch.dtype, m: int, k: int, rank: int, options: tuple, smooth: bool = True) -> OpCall:
    inputs = Inputs(dtype, seed=m)
    return OpCall("quantize_act", name, (inputs.normal(m, k), *companions(inputs, k, rank, smooth), *options), exact=True)


def quantize_calls() -> Iterator[Call]:
    yield quantize("int4", HALF, 21, 320, 36, INT4)
    yield quantize("uint4", BFLOAT, 21, 640, 16, UINT4)
    yield quantize("nvfp4", BFLOAT, 21, 208, 128, NVFP4)
    yield quantize("nvfp4 4/6", HALF, 19, 320, 0, FOUR_OVER_SIX, smooth=False)
    yield quantize("int8 held", BFLOAT, 21, 640, 20, INT8)
    yield quantize("int8 streamed", HALF, 17, 1600, 96, INT8_SEGMENTS)
    yield quantize("int8 one unit", HALF, 3, 48, 16, INT8)
    yield quantize("fp8 segments", HALF, 33, 320, 32, FP8_SEGMENTS)
    yield quantize("fp8 long rows", BFLOAT, 18, 5120, 0, FP8, smooth=False)
    yield quantize("fewer rows than blocks of 32 need", BFLOAT, 2047, 128, 0, INT4, smooth=False)
    yield quantize("blocks of 32 rows, int4", BFLOAT, 2057, 320, 36, INT4)
    yield quantize("blocks of 32 rows, nvfp4", HALF, 2057, 80, 0, NVFP4)
    yield quantize("blocks of 32 rows, int8", HALF, 2057, 320, 64, INT8_SEGMENTS)
    yield from extremes()
    for sizes, text in TILES.items():
        wanted = f"{text} bytes of shared memory"
        yield Choice(f"quantize tile of {sizes}", lambda kernels, sizes=sizes: kernels.describe_quantize_tile(*sizes), wanted)
    for changes, sentence in (
        ({"dtype": 2}, "x: float16 or bfloat16 needed"),
        ({"rows": 0}, "M: a positive size needed"),
        ({"columns": 0}, "K: a positive size needed"),
        ({"segments": 0}, "segments: a positive size needed"),
        ({"padded_rows": 12}, "M of ascales: a multiple of 8 needed"),
        ({"columns": 80}, "K: a multiple of 64 needed"),
        ({"columns": 80, "format": 1}, "K: a multiple of 64 needed"),
        ({"columns": 72, "format": 4}, "K: a multiple of 16 needed"),
        ({"segments": 3, "format": 4}, "K: a multiple of 3 needed"),
        ({"segments": 8, "format": 4}, "columns of a segment: a multiple of 16 needed"),
        ({"rank": 6}, "R: a multiple of 4 needed"),
        ({"rank": 132}, "R: at most 128 needed"),
        *(({name: 72}, f"{name}: an address aligned to 16") for name in OPERANDS),
        *(({name: 0}, f"{name}: a tensor needed") for name in OPERANDS if name != "smooth"),
    ):
        yield Refusal(f"quantize_act {changes}", lambda kernels, changes=changes: refuse(kernels, **changes), sentence)


def quantize_arguments(kernels: ModuleType, **changes: int) -> Any:
    fields: dict[str, float] = dict.fromkeys(OPERANDS, 64)
    fields |= {"rows": 5, "padded_rows": 8, "columns": 64, "rank": 4, "segments": 1, "shift": 0.0, "format": 0}
    return kernels.QuantizeArguments(*(fields | changes).values())


def refuse(kernels: ModuleType, dtype: int = 0, **changes: int) -> None:
    kernels.quantize_act(quantize_arguments(kernels, **changes), dtype, 0)


def refuse_norm(kernels: ModuleType, **changes: int) -> None:
    fields = dict.fromkeys(("weight", "bias", "mod_scale", "mod_shift"), 64) | {"rows_per_scale": 1, "rows_per_shift": 1}
    kernels.norm_quantize(quantize_arguments(kernels), kernels.NormArguments(*(fields | changes).values(), 1e-5, True), 0, 0)


def refuse_group_norm(kernels: ModuleType, **changes: int) -> None:
    fields = dict.fromkeys(("weight", "bias", "workspace"), 64) | {"batch": 1, "pixels": 5, "groups": 4}
    norm = kernels.GroupNormArguments(*(fields | changes).values(), 1e-5, True)
    kernels.group_norm_quantize(quantize_arguments(kernels), norm, 0, 0)


def extremes() -> Iterator[Call]:
    """Infinities, NaN, zeros and ties, in every row one."""
    for name, options in (("int4", INT4), ("uint4", UINT4), ("4/6", FOUR_OVER_SIX), ("int8", INT8), ("fp8", FP8_SEGMENTS)):
        for dtype in (HALF, BFLOAT):
            inputs = Inputs(dtype, seed=5)
            x = inputs.normal(12, 320)
            x[0], x[1] = 0, -0.0
            x[2, 7], x[3, 70], x[4, 9] = float("inf"), float("nan"), 6e4
            x[5] = x[5].sign() * torch.finfo(dtype).max
            x[6] = x[6].sign() * torch.finfo(dtype).smallest_normal / 4
            x[7:10] = (torch.arange(-28, 29) / 4).repeat(17)[: 3 * 320].reshape(3, 320).to(dtype)
            x[7:10, ::16] = 7
            small = inputs.positive(320) * 2.0**-20
            yield OpCall("quantize_act", f"extremes {name} {dtype}", (x, None, None, *options), exact=True)
            yield OpCall("quantize_act", f"extremes {name} {dtype}, small smooth", (x, small, None, *options), exact=True)


def norm_calls() -> Iterator[Call]:
    op = "norm_quantize"
    for name, dtype, m, k, rank, norm, present, batch, options in (
        ("layer, modulated", BFLOAT, 69, 192, 16, "layer", (False, False, True, True), 3, INT8),
        ("rms, weight", HALF, 21, 640, 36, "rms", (True, False, False, False), 1, INT4),
        ("layer, weight and bias, streamed", BFLOAT, 18, 5120, 96, "layer", (True, True, False, False), 1, FOUR_OVER_SIX),
        ("rms, scale", HALF, 66, 320, 0, "rms", (True, False, True, False), 2, FP8_SEGMENTS),
        ("blocks of 32 rows", BFLOAT, 2058, 80, 36, "layer", (False, False, False, True), 3, NVFP4),
        ("uint4", HALF, 20, 128, 4, "layer", (False, False, True, True), 20, UINT4),
    ):
        inputs = Inputs(dtype, seed=k)
        tensors = inputs.positive(k), inputs.normal(k), inputs.normal(batch, k), inputs.normal(batch, k)
        affine = [tensor if there else None for tensor, there in zip(tensors, present, strict=True)]
        x = inputs.normal(m, k) + (2048 if name == "uint4" else 0)
        yield OpCall(op, name, (x, norm, 1e-3, *affine, *companions(inputs, k, rank), *options))
    for changes, sentence in (
        *(({name: 72}, f"{name}: an address aligned to 16") for name in ("weight", "bias", "mod_scale", "mod_shift")),
        ({"rows_per_scale": 0}, "rows per row of mod_scale: a positive size needed"),
        ({"rows_per_shift": 0}, "rows per row of mod_shift: a positive size needed"),
    ):
        yield Refusal(f"norm_quantize {changes}", lambda kernels, changes=changes: refuse_norm(kernels, **changes), sentence)


def group_norm_calls() -> Iterator[Call]:
    op = "group_norm_silu_quantize"
    for name, dtype, batch, pixels, channels, groups, affine, silu, rank, options in (
        ("batch items that meet in a block", HALF, 3, 23, 192, 16, True, True, 16, INT8),
        ("no affine, no SiLU", BFLOAT, 2, 40, 320, 32, False, False, 0, INT4),
        ("one group, streamed", BFLOAT, 1, 18, 5120, 1, True, True, 96, FOUR_OVER_SIX),
        ("every channel a group", HALF, 2, 17, 64, 64, True, False, 4, FP8_SEGMENTS),
        ("many pixels", BFLOAT, 2, 1100, 64, 4, True, True, 0, NVFP4),
        ("one pixel short of a run of registers", HALF, 2, 31, 64, 8, True, True, 0, INT8),
    ):
        inputs = Inputs(dtype, seed=pixels)
        weights = (inputs.positive(channels), inputs.normal(channels)) if affine else (None, None)
        x = inputs.normal(batch, pixels, channels) + (300 if name == "many pixels" else 0)
        yield OpCall(op, name, (x, groups, 1e-3, *weights, silu, *companions(inputs, channels, rank), *options))
    for changes, sentence in (
        *(({name: 72}, f"{name}: an address aligned to 16") for name in ("weight", "bias", "workspace")),
        ({"workspace": 0}, "workspace: a tensor needed"),
        ({"groups": 0}, "num_groups: a positive size needed"),
        ({"groups": 3}, "channels: a multiple of 3 needed"),
        ({"pixels": 4}, "x: batch times pixels rows needed, got 5"),
    ):
        yield Refusal(f"{op} {changes}", lambda kernels, changes=changes: refuse_group_norm(kernels, **changes), sentence)
    for sizes, floats in (((1, 1, 8), 32), ((2, 17, 64), 768), ((2, 1 << 16, 512), 2 * 512 * (2 + 2 * 512)),
                          ((8, 1 << 20, 1280), 8 * 1280 * (2 + 2 * (1 << 12)))):
        act = lambda kernels, sizes=sizes: kernels.group_norm_workspace_floats(*sizes)  # noqa: E731
        yield Choice(f"workspace of {sizes}", act, str(floats))
