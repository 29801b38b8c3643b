"""Calls of the norms with RoPE and of the feature caches' arithmetic: every dtype, ragged ends, both layouts, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch

from ..inputs import Inputs
from .call import Call, Choice, OpCall, Refusal

ROPE_OPERANDS = ("q", "k", "q_weight", "k_weight", "q_out", "k_out", "cos", "sin")
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


def rope_call(
    name: str, dtype: torch.dtype, other_dtype: torch.dtype, sizes: tuple, heads: tuple, width: int, norms: tuple, rope: str
) -> OpCall:
    """sizes: batch and tokens; heads and norms: of q and k, a norm being "head", "all" or None."""
    batch, tokens = sizes
    inputs, other = Inputs(dtype, seed=width), Inputs(other_dtype, seed=1)
    q, k = (inputs.normal(batch, tokens, count, width) for count in heads)
    weight_sizes = [{"head": width, "all": count * width, None: 0}[norm] for norm, count in zip(norms, heads, strict=True)]
    weights = [other.positive(size) if size else None for size in weight_sizes]
    angle = other.normal(tokens, width // 2).float()
    return OpCall("qk_norm_rope", name, (q, k, *weights, angle.cos().to(other_dtype), angle.sin().to(other_dtype), 1e-2, rope))


def joint_call(
    name: str, dtype: torch.dtype, other_dtype: torch.dtype, sizes: tuple, heads: tuple, width: int, rope: str
) -> OpCall:
    """sizes: batch and the tokens of both streams; heads: of queries and of keys. Each stream comes out of one product."""
    batch, *tokens = sizes
    inputs, other = Inputs(dtype, seed=width), Inputs(other_dtype, seed=1)
    packed = (heads[0], heads[1], heads[1])
    streams = [inputs.normal(batch, length, sum(packed), width).split(packed, 2) for length in tokens]
    weights = [other.positive(width) for _ in range(4)]
    angle = other.normal(sum(tokens), width // 2).float()
    angles = angle.cos().to(other_dtype), angle.sin().to(other_dtype)
    return OpCall("joint_qkv_norm_rope", name, (*streams[0], *streams[1], *weights, *angles, 1e-2, rope))


def rope_calls() -> Iterator[Call]:
    yield rope_call("lanes", BFLOAT, FLOAT, (2, 5), (3, 2), 64, ("head", "head"), "interleaved")
    yield rope_call("lanes, half", HALF, HALF, (2, 3), (2, 5), 96, ("head", "head"), "half")
    yield rope_call("one lane", HALF, FLOAT, (1, 70), (3, 3), 16, ("head", None), "half")
    yield rope_call("32 lanes", FLOAT, BFLOAT, (1, 2), (2, 1), 512, (None, "head"), "interleaved")
    yield rope_call("whole blocks of lanes", BFLOAT, FLOAT, (2, 8), (4, 4), 64, ("head", "head"), "interleaved")
    *args, cos, sin, eps, rope = rope_call("", BFLOAT, FLOAT, (2, 5), (3, 2), 64, ("head", "head"), "half").args
    yield OpCall("qk_norm_rope", "cos and sin of other dtypes", (*args, cos, sin.bfloat16(), eps, rope))
    yield rope_call("blocks", BFLOAT, BFLOAT, (2, 3), (5, 3), 128, ("all", "all"), "half")
    yield rope_call("blocks, no vectors", HALF, HALF, (2, 3), (3, 2), 72, ("head", "all"), "interleaved")
    yield rope_call("blocks, no vectors, half", FLOAT, HALF, (1, 3), (2, 2), 18, ("head", None), "half")
    yield rope_call("more units than threads", BFLOAT, FLOAT, (1, 2), (40, 1), 256, ("all", "head"), "interleaved")
    yield rope_call("more pairs than threads", BFLOAT, FLOAT, (1, 2), (1, 1), 1048, ("all", "all"), "half")
    packed = rope_call("", HALF, FLOAT, (2, 3), (9, 1), 64, ("head", "all"), "half")
    q, k = packed.args[0].split((4, 5), 2)
    yield OpCall("qk_norm_rope", "rows of a wider product", (q, k, packed.args[2], packed.args[2], *packed.args[4:]))
    yield joint_call("lanes", BFLOAT, FLOAT, (2, 3, 5), (3, 2), 64, "interleaved")
    yield joint_call("lanes, half, whole blocks", HALF, HALF, (1, 4, 8), (4, 4), 64, "half")
    yield joint_call("blocks, no vectors", FLOAT, BFLOAT, (2, 1, 2), (2, 1), 18, "interleaved")
    yield joint_call("blocks", HALF, FLOAT, (1, 2, 1), (1, 1), 528, "half")
    for args, text in (
        ((128, 128), "8 lanes for each head"),
        ((96, 96), "8 lanes for each head"),
        ((16, 16), "1 lanes for each head"),
        ((144, 144), "16 lanes for each head"),
        ((512, 512), "32 lanes for each head"),
        ((528, 528), "64 threads for each norm"),
        ((128, 5120), "320 threads for each norm"),
        ((128, 24576), "512 threads for each norm"),
        ((72, 72), "64 threads for each norm"),
    ):
        yield Choice(f"qk_norm_rope {args}", lambda kernels, args=args: kernels.describe_qk_norm_rope(*args), text)
    for changes, sentence in (
        ({"batch": 0}, "B: a positive size needed"),
        ({"tokens": 0}, "T: a positive size needed"),
        ({"side_tokens": 0}, "tokens: a positive size needed"),
        ({"first_token": 1}, "tokens: at most 2 needed"),
        ({"width": 0}, "head width: a positive size needed"),
        ({"width": 33}, "head width: a multiple of 2 needed"),
        ({"row_stride": 68}, "row stride: a multiple of 8 needed"),
        ({"batch_stride": 68}, "batch stride: a multiple of 8 needed"),
        ({"row_stride": 66, "dtype": 2}, "row stride: a multiple of 4 needed"),
        ({"q_heads": 0}, "q: a positive size needed"),
        ({"k_heads": 0}, "k: a positive size needed"),
        ({"q_heads": 1 << 16}, "width of all heads: at most 1048576 needed"),
        ({"batch": 1 << 32}, "B: at most 2147483648 needed"),
        ({"batch": (1 << 28) + 1}, "heads of all tokens: at most 536870912 needed"),
        *(({name: 72}, "an address aligned to 16 bytes") for name in ROPE_OPERANDS),
        *(({name: 66, "width": 34}, "an address aligned to 4 bytes") for name in ("q", "k_weight", "k_out", "cos", "sin")),
        *(({name: 0}, "a tensor needed") for name in ("q", "k", "q_out", "k_out", "cos", "sin")),
    ):
        yield Refusal(f"qk_norm_rope {changes}", lambda kernels, changes=changes: refuse_rope(kernels, **changes), sentence)


def refuse_rope(kernels: ModuleType, **changes: int) -> None:
    fields = dict.fromkeys(ROPE_OPERANDS, 64)
    fields |= {"batch": 2, "tokens": 2, "side_tokens": 2, "first_token": 0, "width": 32, "q_heads": 2, "k_heads": 2, "dtype": 0}
    fields |= {"row_stride": 64, "batch_stride": 128} | changes
    at = {name: kernels.Floats(fields[name], fields["dtype"]) for name in ROPE_OPERANDS}
    place = fields["batch_stride"], fields["row_stride"]
    tokens = fields["side_tokens"], fields["first_token"]
    q, k = (
        kernels.RopeSide(at[x], at[f"{x}_weight"], fields[f"{x}_out"], *place, fields[f"{x}_heads"], *tokens, False, True)
        for x in "qk"
    )
    arguments = kernels.RopeArguments(at["cos"], at["sin"], fields["batch"], fields["tokens"], fields["width"], 1e-5, False)
    kernels.qk_norm_rope(q, k, arguments, 0)
    kernels.joint_qkv_norm_rope([q, k, k, q, k, k], arguments, 0)


def cache_calls() -> Iterator[Call]:
    for index, (shape, dtype, other_dtype) in enumerate((
        ((2, 11, 77), BFLOAT, FLOAT),
        ((2049,), HALF, HALF),
        ((3, 700, 8), FLOAT, BFLOAT),
        ((5, 3), HALF, BFLOAT),
        ((7, 72), BFLOAT, HALF),
    )):
        inputs, other = Inputs(dtype, seed=index), Inputs(other_dtype, seed=9)
        x, y = inputs.normal(*shape), other.normal(*shape)
        name = f"{'x'.join(map(str, shape))}"
        yield OpCall("rel_l1", name, (x, y))
        yield OpCall("delta_apply", name, (x, y))
        yield OpCall("affine_correct", name, (x, other.normal(shape[-1]), other.normal(shape[-1])))
        history = [inputs.normal(*shape) for _ in range(2 * index or 8)]
        yield OpCall("forecast", name, (history, torch.linspace(-1, 2, len(history))))
    yield OpCall("rel_l1", "nothing", (torch.empty(0), torch.empty(0)))
    # More than the 1,024 blocks take in one go.
    many = Inputs(BFLOAT)
    yield OpCall("rel_l1", "many", (many.normal(1024 * 2048 + 12345), many.positive(1024 * 2048 + 12345)))
    for count, floats in ((1, 2), (2048, 2), (2049, 4), (1 << 40, 2048)):
        yield Choice(f"rel_l1 workspace of {count}", lambda kernels, count=count: kernels.rel_l1_workspace(count), str(floats))
    for op, changes, sentence in cache_refusals():
        yield Refusal(f"{op} {changes}", lambda kernels, op=op, changes=changes: refuse_cache(kernels, op, **changes), sentence)


CACHE_OPERANDS = {
    "rel_l1": ("x", "y", "workspace", "out"),
    "delta_apply": ("x", "y", "out"),
    "affine_correct": ("x", "y", "z", "out"),
    "forecast": ("x", "y", "out"),
}


def cache_refusals() -> Iterator[tuple[str, dict[str, int], str]]:
    for op, operands in CACHE_OPERANDS.items():
        yield op, {"count": 1 << 43}, "count: at most 4398046509056 needed"
        if op != "rel_l1":
            yield op, {"count": 0}, "count: a positive size needed"
        for name in operands:
            yield op, {name: 0}, "a tensor needed"
            yield op, {name: 66}, "an address aligned to"
    yield "affine_correct", {"channels": 0}, "channels: a positive size needed"
    yield "affine_correct", {"channels": 3}, "count: a multiple of 3 needed"


def refuse_cache(kernels: ModuleType, op: str, **changes: int) -> None:
    fields = dict.fromkeys("xyz", 64) | {"workspace": 64, "out": 64, "count": 8, "channels": 8} | changes
    x, y, z = (kernels.Floats(fields[name], 2) for name in "xyz")
    if op == "rel_l1":
        kernels.rel_l1(x, y, fields["workspace"], fields["out"], fields["count"], 0)
    elif op == "delta_apply":
        kernels.delta_apply(x, y, fields["out"], fields["count"], 0)
    elif op == "affine_correct":
        kernels.affine_correct(x, y, z, fields["out"], fields["count"], fields["channels"], 0)
    else:
        kernels.forecast([64, fields["x"]], 2, fields["y"], fields["out"], fields["count"], 0)
