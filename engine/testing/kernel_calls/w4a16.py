"""Calls of gemm_w4a16: the matrix-vector product for every number of column tiles, the tiled one, both formats, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch

from ..inputs import Inputs
from .call import Call, Choice, OpCall, Refusal, WorkCall

OPERANDS = ("x", "smooth", "parts", "qweight", "wscales", "wtscale", "low_rank_act", "proj_up", "bias", "out")
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32
# Of 64 x 64 values and 64 of K.
TILED_STEP_PRODUCTS = 4 * 8 * 4


def product(
    name: str, dtype: torch.dtype, m: int, n: int, k: int, rank: int, format: str, smooth: bool = False, bias: bool = True
) -> OpCall:
    inputs = Inputs(dtype, seed=m + k)
    weight = (*inputs.weight(n, k, format), None)[:3]
    divisor = inputs.positive(k) if smooth else None
    args = (inputs.normal(m, k), divisor, *weight, *inputs.companions(m, n, rank, bias), FLOAT)
    return OpCall("gemm_w4a16", f"{format} {name}", args)


def w4a16_calls() -> Iterator[Call]:
    yield product("one row", HALF, 1, 136, 1088, 33, "int4")
    yield product("one row", BFLOAT, 1, 72, 1104, 16, "nvfp4")
    yield product("three rows, smooth", BFLOAT, 3, 40, 448, 0, "int4", smooth=True, bias=False)
    yield product("eight rows", BFLOAT, 8, 24, 192, 16, "int4")
    yield product("six rows, smooth", HALF, 6, 24, 208, 40, "nvfp4", smooth=True)
    yield product("wide", BFLOAT, 2, 8456, 64, 8, "int4")
    yield product("tiled", HALF, 70, 72, 448, 33, "int4")
    yield product("tiled", BFLOAT, 65, 136, 208, 70, "nvfp4", bias=False)
    yield product("tiled, smooth", HALF, 41, 72, 320, 16, "int4", smooth=True)
    yield product("tiled, one step", BFLOAT, 9, 8, 16, 0, "nvfp4")
    yield rounded(HALF, 5)
    yield rounded(BFLOAT, 11)
    yield rounded(HALF, 12)
    yield product("whole blocks of smoothing", BFLOAT, 16, 8, 320, 0, "int4", smooth=True)
    yield with_infinity(product("an infinity, smooth", HALF, 4, 24, 64, 0, "int4", smooth=True))
    # Several steps in flight for every warp of a matrix-vector product.
    yield product("long rows", BFLOAT, 1, 24, 8192, 0, "int4")
    yield product("long rows", HALF, 2, 24, 8208, 8, "nvfp4")
    tiled = product("tiled, three whole steps", BFLOAT, 64, 64, 192, 0, "int4")
    yield tiled
    yield WorkCall(tiled, products=3 * TILED_STEP_PRODUCTS)
    yield float32_companions()
    for args, text in (
        ((1, 4224, 1), "matrix-vector, 16 weight rows split over K by 8, 4 rows of x, 264 blocks"),
        ((1, 8416, 1), "matrix-vector, 16 weight rows split over K by 8, 4 rows of x, 526 blocks"),
        ((4, 8448, 2), "matrix-vector, 32 weight rows split over K by 4, 8 rows of x, 264 blocks"),
        ((5, 33792, 2), "matrix-vector, 128 weight rows split over K by 1, 16 rows of x, 264 blocks"),
        ((8, 24, 1), "matrix-vector, 16 weight rows split over K by 8, 8 rows of x, 2 blocks"),
        ((9, 65, 2), "64 x 64 tiles, 2 blocks"),
        ((65, 64, 1), "64 x 64 tiles, 2 blocks"),
    ):
        yield Choice(f"gemm_w4a16 {args}", lambda kernels, args=args: kernels.describe_gemm_w4a16(*args), text)
    for changes, sentence in refused():
        yield Refusal(f"gemm_w4a16 {changes}", lambda kernels, changes=changes: refuse(kernels, **changes), sentence)


def rounded(dtype: torch.dtype, m: int) -> OpCall:
    call = product(f"{m} rows, {dtype} out", dtype, m, 24, 128, 8, "int4")
    return OpCall(call.op, call.name, (*call.args[:-1], dtype))


def with_infinity(call: OpCall) -> OpCall:
    x, *rest = call.args
    return OpCall(call.op, call.name, (x.index_fill(0, torch.tensor([2]), torch.inf), *rest))


def float32_companions() -> OpCall:
    call = product("float32 companions", BFLOAT, 12, 24, 64, 16, "int4")
    companions = (tensor.float() for tensor in call.args[5:8])
    return OpCall(call.op, call.name, (*call.args[:5], *companions, FLOAT))


def refused() -> Iterator[tuple[dict[str, int], str]]:
    yield {"x_dtype": 2}, "x: float16 or bfloat16 needed"
    for name in "mnk":
        yield {name: 0}, f"{name.upper()}: a positive size needed"
    for name, limit in (("m", 512), ("n", 1 << 18), ("k", 1 << 16)):
        yield {name: limit + 64}, f"{name.upper()}: at most {limit} needed"
    yield {"n": 12}, "N: a multiple of 8 needed"
    yield {"k": 80}, "K: a multiple of 64 needed"
    yield {"k": 72, "nvfp4": 1}, "K: a multiple of 16 needed"
    yield {"wscales_dtype": 2}, "wscales: float16 or bfloat16 needed for int4"
    for name in ("x", "parts", "qweight", "wscales", "low_rank_act", "proj_up", "out"):
        yield {name: 0}, f"{name}: a tensor needed"
    yield {"rank": 1, "proj_up": 0}, "proj_up: a tensor needed"
    yield {"wtscale": 0, "nvfp4": 1}, "wtscale: a tensor needed"
    for name, alignment in (("x", 16), ("smooth", 16), ("parts", 16), ("qweight", 16), ("out", 16), ("wtscale", 4),
                            ("low_rank_act", 4), ("proj_up", 4), ("bias", 2), ("wscales", 2)):
        yield {name: 64 + alignment // 2}, f"{name}: an address aligned to {alignment}"  # fmt: skip


def refuse(kernels: ModuleType, **changes: int) -> None:
    fields = dict.fromkeys(OPERANDS, 64)
    fields |= {"m": 3, "n": 8, "k": 64, "rank": 8, "x_dtype": 0, "wscales_dtype": 0, "nvfp4": 0} | changes
    smooth, *companions = (kernels.Floats(fields[name], 0) for name in ("smooth", "low_rank_act", "proj_up", "bias"))
    wscales, x = (kernels.Floats(fields[name], fields[f"{name}_dtype"]) for name in ("wscales", "x"))
    sizes = (fields[name] for name in ("m", "n", "k", "rank"))
    arguments = kernels.W4A16Arguments(
        fields["qweight"], wscales, fields["wtscale"], *companions, fields["out"], 2, *sizes
    )
    kernels.gemm_w4a16(x, smooth, fields["parts"], bool(fields["nvfp4"]), arguments, 0)
