"""Calls of the convolutions: geometries that differ in height and width, images no tile fits, segments, ranks, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch

from ...ops import quantize_act
from ...ops.conv2d import out_size
from ..inputs import Inputs
from .call import Call, Choice, OpCall, Refusal
from .gemm import with_poisoned_padding

HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32
# kernel, stride, padding, dilation
SAME_3X3, WIDE, TALL = ([3, 3], [1, 1], [1, 1], [1, 1]), ([2, 3], [2, 1], [0, 2], [1, 2]), ([3, 2], [1, 2], [2, 0], [2, 1])
MOST_TAPS, ONE_TAP = ([4, 8], [3, 2], [5, 6], [1, 3]), ([1, 1], [2, 2], [0, 0], [1, 1])


def convolution(
    format: str, dtype: torch.dtype, image: list[int], channels: int, n: int, geometry: tuple, rank: int, segments: int = 1
) -> tuple:
    inputs = Inputs(dtype, seed=channels + n)
    pixels = image[0] * image[1] * image[2]
    qx, ascales, _ = quantize_act.reference(inputs.normal(pixels, channels), None, None, format, segments=segments)
    kernel = geometry[0]
    weight = (*inputs.weight(n, kernel[0] * kernel[1] * channels, format), None)[:3]
    height, width = out_size(image, *geometry)
    companions = inputs.companions(image[0] * height * width, n, rank, rank > 0)
    return (qx, with_poisoned_padding(ascales, pixels), *weight, *companions, format, image, *geometry, FLOAT)


def convolutions(format: str) -> Iterator[Call]:
    def call(name: str, *args, **options) -> OpCall:
        return OpCall("conv2d", f"{format} {name}", convolution(format, *args, **options))

    yield call("small tile", HALF, [2, 5, 7], 64, 72, SAME_3X3, 16)
    yield call("large tile", BFLOAT, [3, 13, 14], 192, 136, SAME_3X3, 48)
    yield call("wide", HALF, [2, 9, 12], 192, 24, WIDE, 0)
    yield call("tall", BFLOAT, [2, 9, 11], 128, 24, TALL, 8)
    yield call("32 taps", HALF, [1, 9, 12], 64, 8, MOST_TAPS, 16)
    yield call("most pixels of a small tile", HALF, [1, 16, 32], 64, 8, SAME_3X3, 0)
    yield call("fewest pixels of a large tile", BFLOAT, [1, 19, 27], 64, 8, SAME_3X3, 0)
    yield call("1x1, more ranks than channels", BFLOAT, [2, 9, 12], 64, 72, ONE_TAP, 136)
    if format == "int8":
        yield call("segments", HALF, [2, 5, 7], 192, 72, SAME_3X3, 16, segments=3)
        yield call("segments, large tile", BFLOAT, [1, 23, 24], 128, 24, SAME_3X3, 16, segments=2)
    inputs = Inputs(BFLOAT, seed=7)
    args = convolution(format, BFLOAT, [2, 7, 5], 64, 136, SAME_3X3, 16)
    yield OpCall("conv2d_gate_residual", format, (*args, inputs.normal(2, 136), inputs.normal(2, 7, 5, 136)))


def conv2d_w4a4_calls() -> Iterator[Call]:
    yield from convolutions("int4")
    yield from refusals("conv2d_w4a4")
    yield refusal("conv2d_w4a4", {"segment_bytes": 16}, "bytes of a segment: a multiple of 32 needed")
    yield from choices("conv2d_w4a4", {
        (512, 129): "64x64 tiles, 128 threads, 4 stages, 34816 bytes shared, 24 blocks",
        (513, 129): "256x128 tiles, 256 threads, 3 stages, 78336 bytes shared, 6 blocks",
    })  # fmt: skip


def conv2d_w8a8_calls() -> Iterator[Call]:
    yield from convolutions("int8")
    yield from refusals("conv2d_w8a8")
    yield refusal("conv2d_w8a8", {"segment_bytes": 32}, "bytes of a segment: a multiple of 64 needed")
    yield from choices("conv2d_w8a8", {
        (512, 129): "64x64 tiles, 128 threads, 4 stages, 32768 bytes shared, 24 blocks",
        (513, 129): "128x128 tiles, 256 threads, 4 stages, 65536 bytes shared, 10 blocks",
    })  # fmt: skip


def choices(op: str, wanted: dict[tuple, str]) -> Iterator[Call]:
    for args, text in wanted.items():
        yield Choice(f"{op} tile of {args}", lambda kernels, args=args: getattr(kernels, f"choose_{op}_tile")(*args), text)


def refusals(op: str) -> Iterator[Call]:
    for name, said in (
        ("height", "height"),
        ("width", "width"),
        ("out_height", "height of the output"),
        ("out_width", "width of the output"),
        ("kernel_height", "height of the kernel"),
        ("kernel_width", "width of the kernel"),
        ("segment_bytes", "bytes of a segment"),
    ):
        yield refusal(op, {name: 0}, f"{said}: a positive size needed")
    yield refusal(op, {"kernel_width": 33}, "taps of the kernel: at most 32 needed")
    yield refusal(op, {"kernel_height": 33, "kernel_width": 1}, "taps of the kernel: at most 32 needed")
    yield refusal(op, {"m": 5}, "M: a multiple of 6 needed")
    yield refusal(op, {"row_bytes": 192}, "qweight: a pixel's bytes for every tap needed")
    yield refusal(op, {"segment_bytes": 128}, "bytes of a pixel: a multiple of 128 needed")
    yield refusal(op, {"n": 12}, "N: a multiple of 8 needed")


def refusal(op: str, changes: dict[str, int], sentence: str) -> Refusal:
    return Refusal(f"{op} {changes}", lambda kernels: refuse(kernels, op, **changes), sentence)


def refuse(kernels: ModuleType, op: str, **changes: int) -> None:
    geometry = {"height": 2, "width": 4, "out_height": 2, "out_width": 3, "kernel_height": 1, "kernel_width": 2}
    fields = geometry | {"m": 6, "n": 16, "row_bytes": 128, "segment_bytes": 64} | changes
    shape = kernels.ConvGeometry(*(fields[name] for name in geometry), 1, 1, 0, 0, 1, 1, 64)
    epilogue = kernels.EpilogueArguments(0, 0, 0, 64, 1, fields["n"], 0, 0, 0, kernels.NextLayerArguments())
    sizes = fields["m"], 8, fields["n"], fields["row_bytes"], 8, fields["segment_bytes"]
    getattr(kernels, op)(kernels.GemmArguments(*[64] * 7, *sizes, epilogue), shape, 0, 0)
