"""Calls of the tiled products: both tiles, ragged M, N and K, odd ranks, every epilogue, and what their host code refuses."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..inputs import Inputs
from ..products import operands
from ..shapes import Shape
from .call import Call, Choice, OpCall, Refusal, WorkCall

HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


def with_poisoned_padding(ascales: Tensor, rows: int) -> Tensor:
    """The scales of rows beyond the last token are there to be read, and must count for nothing."""
    padded = ascales.float()
    padded[:, rows:] = float("nan")
    return padded.to(ascales.dtype)


def product(
    op: str, dtype: torch.dtype, m: int, n: int, k: int, rank: int = 16, out_dtype: torch.dtype = FLOAT, **options: Any
) -> tuple:
    """options: of products.operands."""
    qx, ascales, *rest = operands(op, Shape("", m, n, k), dtype, rank, out_dtype=out_dtype, **options)
    return qx, with_poisoned_padding(ascales, m), *rest


def unsigned(m: int, n: int, k: int, dtype: torch.dtype) -> tuple:
    inputs = Inputs(dtype)
    qx, ascales = inputs.act(m, k, "int4", unsigned=True)
    return qx, with_poisoned_padding(ascales, m), *inputs.weight(n, k, "int4"), *inputs.companions(m, n, 8, True), True, dtype


def epilogue_calls(op: str) -> Iterator[Call]:
    for activation, glu, m, n in (
        ("gelu_erf", "none", 70, 72),
        ("gelu_tanh", "value_first", 77, 80),
        ("silu", "gate_first", 130, 272),
        ("none", "value_first", 300, 144),
    ):
        dtype = HALF if m < 128 else BFLOAT
        yield OpCall(f"{op}_act", f"{activation} {glu} {m}x{n}", (*product(op, dtype, m, n, 192), activation, glu))
    for dtype, batch, m, n in ((HALF, None, 66, 72), (BFLOAT, 3, 66, 136), (HALF, 2, 300, 136)):
        inputs = Inputs(dtype, seed=m)
        gate = None if batch is None else inputs.normal(batch, n)
        args = (*product(op, dtype, m, n, 192), gate, inputs.normal(m, n))
        yield OpCall(f"{op}_gate_residual", f"{batch} gates {m}x{n}", args)


# format, shift, unsigned, segments, four_over_six
NEXT_FORMATS = {
    "int4": ("int4",),
    "int4 after GELU": ("int4", 0.171875, True),
    "nvfp4": ("nvfp4",),
    "nvfp4 4/6": ("nvfp4", 0.0, False, 1, True),
    "int8": ("int8", 0.0, False, 5),
    "fp8": ("fp8", -0.25, False, 10),
}


def next_layer_calls(op: str) -> Iterator[Call]:
    """The output quantized for the next layer."""
    for index, (name, format) in enumerate(NEXT_FORMATS.items()):
        dtype, glu, rank = ((HALF, "none", 36), (BFLOAT, "gate_first", 0), (BFLOAT, "none", 4))[index % 3]
        inputs, columns, m = Inputs(dtype, seed=index), 320, (75, 270)[index % 2]
        proj_down = inputs.normal(columns, rank, scale=0.1) if rank else None
        args = product(op, dtype, m, columns if glu == "none" else 2 * columns, 64, out_dtype=dtype)
        smooth = None if index == 2 else inputs.positive(columns)
        yield OpCall(f"{op}_act_quantize", f"{name} {glu} rank {rank}", (*args, "gelu_tanh", glu, smooth, proj_down, *format))
    # Quotients that leave the range in which a multiplication stands for the division.
    inputs = Inputs(BFLOAT, seed=11)
    args = product(op, BFLOAT, 70, 64, 64, out_dtype=BFLOAT)
    smooth = inputs.positive(64) * 2.0**-70
    yield OpCall(f"{op}_act_quantize", "tiny smooth", (*args, "none", "none", smooth, None, *NEXT_FORMATS["int4"]))
    ranked = OpCall(f"{op}_act_quantize", "64 ranks", (*args, "none", "none", None, inputs.normal(64, 64), *NEXT_FORMATS["int4"]))
    yield ranked
    yield WorkCall(ranked, products=next_layer_products(op))
    # Tiles divide the columns: a partial sum more than there are tiles is of nothing.
    whole = product(op, BFLOAT, 70, 256, 64, out_dtype=BFLOAT)
    yield OpCall(f"{op}_act_quantize", "256 columns", (*whole, "none", "none", None, inputs.normal(256, 8), *NEXT_FORMATS["int4"]))


def next_layer_products(op: str) -> int:
    """Of one tile of any number of columns up to 64: a step of codes, one of ranks, then 64 ranks for the next layer."""
    rows, columns = (8, 32) if op == "gemm_w8a8" else (16, 16)
    return rows * columns * 2 * 2 + rows * 4 * 8


def whole_tile_calls(op: str, k: int) -> Iterator[Call]:
    """Sizes that tiles, steps and bands of tiles divide, where one too many would do no harm but take time. k: of one step."""
    small = OpCall(op, "two whole tiles", product(op, HALF, 64, 128, 2 * k, 32))
    yield small
    yield WorkCall(small, products=2 * 4 * 8 * 2 * 3)  # tiles, rows, columns, slices, steps
    large = OpCall(op, "three whole tiles", product(op, BFLOAT, 256, 384, k, 64))
    yield large
    yield WorkCall(large, products=3 * 16 * 16 * 2 * 3)
    yield OpCall(op, "two bands", product(op, BFLOAT, 2100, 128, 64, 0))
    yield OpCall(op, "a band of seven", product(op, BFLOAT, 1600, 136, 64, 0))
    yield OpCall(op, "most rows of a small tile", product(op, HALF, 128, 264, 64))
    yield OpCall(op, "fewest rows of a large tile", product(op, BFLOAT, 129, 24, 64))
    yield OpCall(op, "more ranks than columns, no padding", product(op, HALF, 264, 24, 64, 136))


def gemm_w4a4_calls() -> Iterator[Call]:
    op = "gemm_w4a4"
    yield OpCall(op, "small tile", product(op, HALF, 77, 136, 320, 48))
    yield OpCall(op, "large tile", product(op, BFLOAT, 300, 136, 320, 48))
    yield OpCall(op, "no rank, no bias", product(op, BFLOAT, 65, 72, 64, 0, bias=False))
    yield OpCall(op, "unsigned, small tile", unsigned(100, 72, 128, BFLOAT))
    yield OpCall(op, "unsigned, large tile", unsigned(130, 8, 704, HALF))
    yield OpCall(op, "one row", product(op, HALF, 1, 64, 1024, out_dtype=HALF))
    yield from whole_tile_calls(op, 128)
    yield from epilogue_calls(op)
    yield from next_layer_calls(op)
    yield from refusals(op, (False,))
    half_a_group = "bytes of a row of codes: a multiple of 32 needed"
    yield Refusal(f"{op}: half a group", lambda kernels: refuse(kernels, op, (False,), row_bytes=48), half_a_group)
    yield from choices(op, {
        (128, 129, False): "64x64 tiles, 128 threads, 4 stages, 34816 bytes shared, 6 blocks",
        (129, 300, False): "256x128 tiles, 256 threads, 3 stages, 78336 bytes shared, 3 blocks",
        (128, 128, True): "256x128 tiles, 256 threads, 3 stages, 88064 bytes shared, 1 blocks",
    })  # fmt: skip


def gemm_w8a8_calls() -> Iterator[Call]:
    op = "gemm_w8a8"
    yield OpCall(op, "small tile", product(op, HALF, 77, 136, 208, 48))
    yield OpCall(op, "large tile", product(op, BFLOAT, 300, 136, 208, 48))
    yield OpCall(op, "segments", product(op, BFLOAT, 137, 136, 384, segments=3))
    args = product("gemm_w8a8", BFLOAT, 137, 144, 128, segments=2)
    yield OpCall(f"{op}_act", "segments and gate_first", (*args, "silu", "gate_first"))
    args = product(op, BFLOAT, 137, 128, 128, segments=2, out_dtype=BFLOAT)
    yield OpCall(f"{op}_act_quantize", "segments", (*args, "gelu_tanh", "none", None, None, "int8"))
    yield OpCall(op, "fp8 segments", product(op, HALF, 137, 72, 256, segments=2, format="fp8"))
    yield OpCall(op, "fp8, small tile", product(op, HALF, 100, 72, 144, 8, HALF, format="fp8"))
    yield OpCall(op, "fp8, large tile", product(op, BFLOAT, 130, 8, 704, 40, BFLOAT, format="fp8"))
    yield OpCall(op, "no rank, no bias", product(op, BFLOAT, 65, 72, 64, 0, bias=False))
    yield OpCall(op, "one row", product(op, HALF, 1, 64, 1024, out_dtype=HALF))
    yield from whole_tile_calls(op, 64)
    yield from epilogue_calls(op)
    yield from next_layer_calls(op)
    yield from refusals(op, (False,))
    for row_bytes, segment_bytes, sentence in (
        (64, 0, "columns of a segment: a positive size needed"),
        (64, 48, "K: a multiple of 48 needed"),
        (64, 32, "columns of a segment: a multiple of 64 needed"),
    ):
        changes = {"row_bytes": row_bytes, "segment_bytes": segment_bytes}
        yield Refusal(f"{op}: {sentence}", lambda kernels, changes=changes: refuse(kernels, op, (False,), **changes), sentence)
    yield from choices(op, {
        (128, 129, False, False): "64x64 tiles, 128 threads, 4 stages, 32768 bytes shared, 6 blocks",
        (129, 300, False, False): "256x128 tiles, 256 threads, 4 stages, 98304 bytes shared, 3 blocks",
        (129, 300, True, False): "128x128 tiles, 256 threads, 4 stages, 65536 bytes shared, 6 blocks",
        (128, 257, False, True): "128x256 tiles, 256 threads, 4 stages, 98304 bytes shared, 2 blocks",
    })  # fmt: skip


def gemm_nvfp4_calls() -> Iterator[Call]:
    op = "gemm_nvfp4"
    yield OpCall(op, "small tile", product(op, HALF, 77, 136, 352, 48))
    yield OpCall(op, "large tile", product(op, BFLOAT, 300, 136, 352, 48))
    yield OpCall(op, "no rank, no bias", product(op, BFLOAT, 65, 72, 32, 0, bias=False))
    yield OpCall(op, "one row", product(op, HALF, 1, 64, 1024, out_dtype=HALF))
    yield from whole_tile_calls(op, 128)
    yield from epilogue_calls(op)
    yield from next_layer_calls(op)
    yield from refusals(op, ())
    for changes, sentence in (({"wtscale": 0}, "wtscale: a tensor needed"), ({"wtscale": 66}, "wtscale: an address aligned to 4"),
                              ({"padded_m": 12}, "rows of ascales: a multiple of 8 needed")):
        yield Refusal(f"{op}: {sentence}", lambda kernels, changes=changes: refuse(kernels, op, (), **changes), sentence)
    yield from choices(op, {
        (128, 129, False): "64x64 tiles, 128 threads, 4 stages, 36864 bytes shared, 6 blocks",
        (129, 129, False): "256x128 tiles, 256 threads, 3 stages, 82944 bytes shared, 2 blocks",
        (128, 128, True): "256x128 tiles, 256 threads, 3 stages, 88064 bytes shared, 1 blocks",
    })  # fmt: skip


def choices(op: str, wanted: dict[tuple, str]) -> Iterator[Call]:
    """Arguments of choose_<op>_tile -> its description."""
    for args, text in wanted.items():
        yield Choice(f"{op} tile of {args}", lambda kernels, args=args: getattr(kernels, f"choose_{op}_tile")(*args), text)


def refuse(kernels: ModuleType, op: str, flags: tuple, dtype: int = 0, **changes: int) -> None:
    """Call the host code with one field changed. The addresses are no tensors': nothing may be launched on them."""
    operand = dict.fromkeys(("qx", "ascales", "qweight", "wscales", "wtscale", "low_rank_act", "proj_up"), 64)
    sizes = {"m": 6, "padded_m": 8, "n": 16, "row_bytes": 64, "rank": 8, "segment_bytes": 64}
    after = dict.fromkeys(("bias", "gate", "residual", "out"), 64)
    after |= {"rows_per_gate": 3, "out_stride": 16, "out_dtype": dtype, "activation": 0, "glu": 0}
    next_layer = dict.fromkeys(NEXT_OPERANDS, 64) | {"next_padded_rows": 8, "next_columns": 16, "next_rank": 4}
    next_layer |= {"next_scale_columns": 16, "next_shift": 0.0, "next_format": 4}
    fields = operand | sizes | after | next_layer
    if unknown := set(changes) - set(fields):
        raise KeyError(f"no such field: {unknown}")
    value = (fields | changes).__getitem__
    quantizes = any(name.startswith("next_") for name in changes)
    following = kernels.NextLayerArguments(*map(value, next_layer)) if quantizes else kernels.NextLayerArguments()
    epilogue = kernels.EpilogueArguments(*map(value, after), following)
    arguments = kernels.GemmArguments(*map(value, operand), *map(value, sizes), epilogue)
    getattr(kernels, op)(arguments, *flags, dtype, 0)


NEXT_OPERANDS = ("next_smooth", "next_proj_down", "next_qx", "next_ascales", "next_partials", "next_low_rank_act")
REFUSED: dict[str, list[dict[str, int]]] = {
    "dtype: float16 or bfloat16 operands needed": [{"dtype": 2}],
    "out: the operands' dtype or float32 needed": [{"out_dtype": 1}],
    "M: a positive size needed": [{"m": 0}],
    "N: a positive size needed": [{"n": 0}],
    "K: a positive size needed": [{"row_bytes": 0}],
    "N: a multiple of 8 needed": [{"n": 12}],
    "N: a multiple of 16 needed": [{"n": 24, "glu": 1}],
    "bytes of a row of codes: a multiple of 16 needed": [{"row_bytes": 72}],
    "bytes of a row of ranks: a multiple of 16 needed": [{"rank": 4}],
    "a tensor needed, got none": [
        {name: 0} for name in ("qx", "ascales", "qweight", "wscales", "low_rank_act", "proj_up", "out")
    ] + [{name: 0, "next_qx": 64} for name in ("next_ascales", "next_proj_down", "next_partials", "next_low_rank_act")],
    "an address aligned to 16 bytes needed, got one that is 8 beyond": [
        {name: 72}
        for name in ("qx", "ascales", "qweight", "wscales", "low_rank_act", "proj_up", "bias", "gate", "residual", "out")
        + NEXT_OPERANDS
    ],
    "elements from row to row of out: a multiple of 8 needed": [{"out_stride": 20}],
    "elements from row to row of out: at least 16 needed": [{"out_stride": 8}],
    "gate: a residual needed beside it": [{"residual": 0}],
    "gate: its rows must divide M": [{"rows_per_gate": 4}],
    "R of the next layer: a multiple of 4 needed": [{"next_rank": 6}],
    "K of the next layer: a multiple of 32 needed": [{"next_scale_columns": 32, "next_columns": 48}],
    "segments: 16, 32, 64, 128 or 256 columns each needed, got 48": [{"next_scale_columns": 48, "next_columns": 48}],
    "columns of a segment of the next layer: at most": [
        {"next_scale_columns": 512, "next_columns": 512}, {"next_scale_columns": 256, "next_columns": 512, "glu": 1}
    ],
}  # fmt: skip


def refusals(op: str, flags: tuple) -> Iterator[Call]:
    for sentence, cases in REFUSED.items():
        for changes in cases:
            yield Refusal(f"{op} {changes}", lambda kernels, changes=changes: refuse(kernels, op, flags, **changes), sentence)
