"""Convolutions in Triton: geometries that differ in height and width, segments, NaN, gates, and both ways to multiply E4M3."""

import pytest
import torch

from halfbyte.ops import conv2d, conv2d_gate_residual, quantize_act, use_backend
from halfbyte.ops.conv2d import out_size
from halfbyte.testing import Inputs, assert_close, format_name

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32
# kernel, stride, padding, dilation
SAME_3X3, WIDE, TALL = ([3, 3], [1, 1], [1, 1], [1, 1]), ([2, 3], [2, 1], [0, 2], [1, 2]), ([3, 2], [1, 2], [2, 0], [2, 1])
ONE_TAP = ([1, 1], [2, 2], [0, 0], [1, 1])


def convolution(format, dtype, image, channels, n, geometry, rank, segments=1, poison=None, out_dtype=FLOAT):
    inputs = Inputs(dtype, DEVICE, seed=channels + n)
    pixels = image[0] * image[1] * image[2]
    x = inputs.normal(pixels, channels)
    if poison is not None:
        x[poison] = float("nan")
    qx, ascales, _ = quantize_act.reference(x, None, None, format, segments=segments)
    weight = (*inputs.weight(n, geometry[0][0] * geometry[0][1] * channels, format), None)[:3]
    height, width = out_size(image, *geometry)
    companions = inputs.companions(image[0] * height * width, n, rank, rank > 0)
    return qx, ascales, *weight, *companions, format, image, *geometry, out_dtype


def assert_agrees(op, args, out_dtype):
    with use_backend("triton"):
        got = op(*args)
    assert got.dtype == out_dtype
    assert_close("y", got, op.reference(*args), format_name(out_dtype))


@pytest.mark.parametrize("geometry", [SAME_3X3, WIDE, TALL, ONE_TAP], ids=["same", "wide", "tall", "one tap"])
@pytest.mark.parametrize("format", ["int4", "int8", "fp8", "nvfp4"])
def test_geometries(format, geometry):
    assert_agrees(conv2d, convolution(format, HALF, [2, 6, 7], 64, 24, geometry, 16), FLOAT)


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_segments_and_channels_that_fill_no_step(format):
    assert_agrees(conv2d, convolution(format, BFLOAT, [1, 4, 5], 240, 24, SAME_3X3, 16, segments=3), FLOAT)


@pytest.mark.parametrize("format", ["int4", "nvfp4"])
def test_groups_of_several_steps(format):
    assert_agrees(conv2d, convolution(format, HALF, [1, 4, 5], 192, 8, SAME_3X3, 0, out_dtype=HALF), HALF)
    if format == "nvfp4":
        assert_agrees(conv2d, convolution(format, BFLOAT, [1, 4, 5], 48, 8, SAME_3X3, 0), FLOAT)


@pytest.mark.parametrize("format", ["int4", "int8", "fp8", "nvfp4"])
def test_a_nan_pixel_reaches_the_outputs_that_see_it_and_no_other(format):
    args = convolution(format, HALF, [1, 5, 6], 64, 8, SAME_3X3, 0, poison=14)
    with use_backend("triton"):
        got = conv2d(*args)
    assert torch.equal(got.isnan(), conv2d.reference(*args).isnan())
    assert got[0, :, :, 0].isnan().sum() == 9


def test_gate_and_residual():
    args = convolution("int8", BFLOAT, [2, 5, 6], 64, 24, SAME_3X3, 16)
    inputs = Inputs(BFLOAT, DEVICE)
    residual = inputs.normal(2, 5, 6, 24)
    for gate in (None, inputs.normal(1, 24), inputs.normal(2, 24)):
        assert_agrees(conv2d_gate_residual, (*args, gate, residual), FLOAT)


def test_e4m3_codes_multiply_as_they_are_where_tensor_cores_do(monkeypatch):
    from halfbyte.triton_kernels import conv2d as kernels

    monkeypatch.setattr(kernels, "capability_of", lambda device: (9, 0))
    assert_agrees(conv2d, convolution("fp8", BFLOAT, [1, 5, 6], 64, 24, SAME_3X3, 16), FLOAT)
