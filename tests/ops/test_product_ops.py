"""What the matrix products, the convolution and their refusals compute, against float64 on the decoded operands."""

import pytest
import torch
from torch.nn import functional as F

from halfbyte.formats import dequantize_weight, quantize_weight
from halfbyte.ops import conv2d, fold_weight, gemm_nvfp4, gemm_w4a4, gemm_w4a8, gemm_w4a16, gemm_w8a8, quantize_act
from halfbyte.ops.operands import dequantize_act
from halfbyte.testing import assert_close

M, N, K, R = 21, 40, 192, 16


def operands(format, unsigned=False, dtype=torch.float32):
    """qx, ascales, the stored weight, and both as float64."""
    torch.manual_seed(0)
    x = torch.randn(M, K, dtype=dtype)
    qx, ascales, _ = quantize_act(x.abs() if unsigned else x, None, None, format, unsigned=unsigned)
    weight = quantize_weight(torch.randn(N, K), format, dtype)
    wide_x = dequantize_act(qx, ascales, format, unsigned).double()
    return (qx, ascales), tuple(weight.values()), wide_x, dequantize_weight(**{"wtscale": None} | weight, format=format).double()


def companions():
    return torch.randn(M, R), torch.randn(N, R), torch.randn(N)


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gemm_w4a4(unsigned, out_dtype):
    act, weight, x, w = operands("int4", unsigned)
    low_rank_act, proj_up, bias = companions()
    y = gemm_w4a4(*act, *weight, low_rank_act, proj_up, bias, unsigned, out_dtype)
    assert y.dtype == out_dtype
    want = x @ w.t() + low_rank_act.double() @ proj_up.double().t() + bias
    assert_close("y", y, want, str(out_dtype).removeprefix("torch."))


def test_gemm_w4a4_accumulates_in_float32_over_many_groups():
    k, ones = 16384, torch.ones
    # Each group of 64 adds 64 products of 1 * 7 * 2^-15: a 16-bit accumulator would stop growing long before the end.
    qx, ascales, none = quantize_act(ones(1, k), None, None, "int4")
    weight = quantize_weight(torch.full((8, k), 7 * 2.0**-15), "int4", torch.float32)
    y = gemm_w4a4(qx, ascales, *weight.values(), none, ones(8, 0), torch.full((8,), 1024.0), False, torch.float32)
    assert torch.allclose(y, torch.full((1, 8), 1027.5), rtol=1e-6)


def test_the_shift_comes_off_through_the_bias():
    x, weight = F.gelu(torch.randn(M, K)), torch.randn(N, K)
    stored = quantize_weight(weight, "int4", torch.float32)
    w = dequantize_weight(**stored, wtscale=None, format="int4")
    qx, ascales, none = quantize_act(x, None, None, "int4", shift=0.171875, unsigned=True)
    y = gemm_w4a4(qx, ascales, *stored.values(), none, torch.ones(N, 0), -0.171875 * w.sum(1), True, torch.float32)
    rounded = dequantize_act(qx, ascales, "int4", unsigned=True) - 0.171875
    assert_close("y", y, rounded.double() @ w.double().t(), "float32")
    assert ((y - x @ w.t()).norm() / (x @ w.t()).norm()) < 0.1


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_gemm_w8a8_with_segments(format):
    weight = quantize_weight(torch.randn(N, K), format)
    x = torch.randn(M, K) * torch.tensor([1.0, 30.0, 900.0]).repeat_interleave(K // 3)
    qx, ascales, none = quantize_act(x, None, None, format, segments=3)
    y = gemm_w8a8(qx, ascales, *weight.values(), none, torch.ones(N, 0), None, torch.float32)
    w = dequantize_weight(**weight, wtscale=None, format=format).double()
    scales = ascales[:, :M].double().unsqueeze(-1)
    want = sum((qx[:, i : i + 64].double() * scales[i // 64]) @ w[:, i : i + 64].t() for i in (0, 64, 128))
    assert_close("y", y, want, "float32")


def test_gemm_nvfp4():
    act, weight, x, w = operands("nvfp4")
    low_rank_act, proj_up, bias = companions()
    y = gemm_nvfp4(*act, *weight, low_rank_act, proj_up, bias, torch.float32)
    assert_close("y", y, x @ w.t() + low_rank_act.double() @ proj_up.double().t() + bias, "float32")


@pytest.mark.parametrize("format", ["int4", "nvfp4"])
def test_gemm_w4a16_rounds_only_the_weight(format):
    _, weight, _, w = operands(format)
    x, smooth, (low_rank_act, proj_up, bias) = torch.randn(M, K), torch.rand(K) + 0.5, companions()
    y = gemm_w4a16(x, smooth, *(*weight, None)[:3], low_rank_act, proj_up, bias, torch.float32)
    assert_close("y", y, (x / smooth).double() @ w.t() + low_rank_act.double() @ proj_up.double().t() + bias, "float32")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((1, 1), (1, 1), (0, 0), (1, 1)),
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((3, 1), (1, 2), (2, 0), (2, 1)),
    ],
    ids=["1x1", "3x3", "3x3-stride-2", "3x1-dilated"],
)
@pytest.mark.parametrize("format", ["int4", "nvfp4", "int8", "fp8"])
def test_conv2d(format, kernel, stride, padding, dilation):
    image, channels = (2, 6, 5), 64
    torch.manual_seed(0)
    qx, ascales, _ = quantize_act(torch.randn(60, channels), None, None, format)
    weight = torch.randn(N, channels, *kernel)
    stored = quantize_weight(weight.permute(0, 2, 3, 1).reshape(N, -1), format, torch.float32)
    x = dequantize_act(qx, ascales, format).reshape(*image, channels).permute(0, 3, 1, 2)
    w = dequantize_weight(**{"wtscale": None} | stored, format=format).reshape(N, *kernel, channels).permute(0, 3, 1, 2)
    bias = torch.randn(N)
    want = F.conv2d(x.double(), w.double(), bias.double(), stride, padding, dilation).permute(0, 2, 3, 1)
    low_rank_act, proj_up = torch.randn(want.shape[:3].numel(), R), torch.randn(N, R)
    want = want + (low_rank_act.double() @ proj_up.double().t()).reshape(want.shape)
    tensors = (*stored.values(), None)[:3]
    geometry = (format, image, kernel, stride, padding, dilation)
    y = conv2d(qx, ascales, *tensors, low_rank_act, proj_up, bias, *geometry, torch.float32)
    assert_close("y", y, want, "float32")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_product_of_few_rows(rows):
    _, weight, _, _ = operands("int4")
    qx, ascales, none = quantize_act(torch.randn(rows, K), None, None, "int4")
    assert gemm_w4a4(qx, ascales, *weight, none, torch.ones(N, 0), None, False, torch.float32).shape == (rows, N)


@pytest.mark.parametrize(
    ("position", "tensor", "message"),
    [
        (0, torch.zeros(M, K // 2, dtype=torch.uint8), "qx: dtype int8 needed, got uint8"),
        (1, torch.ones(3, M), r"ascales: shape \[3, 24\] needed, got \[3, 21\]"),
        (2, torch.zeros(N, K, dtype=torch.int8), r"qweight: shape \[40, 96\] needed, got \[40, 192\]"),
        (3, torch.ones(N, 3), r"wscales: shape \[3, 40\] needed, got \[40, 3\]"),
        (4, torch.ones(M, 8), r"low_rank_act: shape \[21, 0\] needed, got \[21, 8\]"),
        (6, torch.ones(N - 1), r"bias: shape \[40\] needed, got \[39\]"),
        (8, torch.int32, "out_dtype: float32, bfloat16 or float16 needed, got torch.int32"),
    ],
    ids=["qx", "ascales", "qweight", "wscales", "low_rank_act", "bias", "out_dtype"],
)
def test_a_wrong_operand_is_named(position, tensor, message):
    act, weight, _, _ = operands("int4")
    args = [*act, *weight, torch.ones(M, 0), torch.ones(N, 0), None, False, torch.float32]
    args[position] = tensor
    with pytest.raises(ValueError, match=message):
        gemm_w4a4(*args)


def w4a8_operands(format="int8"):
    qx, ascales, none = quantize_act(torch.randn(M, K), None, None, format)
    qweight, wscales = quantize_weight(torch.randn(N, K), "int4", torch.float32).values()
    channel_scales = 7 * wscales.float().amax(0) / 127
    return [qx, ascales, qweight, wscales, channel_scales, 2 * channel_scales, none, torch.ones(N, 0), torch.randn(N)]


@pytest.mark.parametrize("fold_channels", [8, 16, 24, 40, 1000])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_gemm_w4a8_is_gemm_w8a8_by_folded_codes_however_they_are_cut(format, fold_channels):
    qx, ascales, *stored, product_scales, low_rank_act, proj_up, bias = operands = w4a8_operands(format)
    want = gemm_w8a8(qx, ascales, fold_weight(*stored, format), product_scales, low_rank_act, proj_up, bias, torch.float32)
    got = gemm_w4a8(*operands, fold_channels, torch.float32)
    assert_close("y", got, want, "float32")


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (4, torch.ones(3), r"channel_scales: shape \[40\] needed, got \[3\]"),
        (5, torch.ones(N).double(), "product_scales: dtype float32 needed, got float64"),
        (0, torch.zeros(M, 2 * K, dtype=torch.int8), r"qweight: shape \[40, 384\] needed, got \[40, 192\]"),
        (9, 0, "fold_channels: at least 1 needed, got 0"),
    ],
    ids=["channel_scales", "product_scales", "qx", "fold_channels"],
)
def test_gemm_w4a8_names_a_wrong_operand(position, value, message):
    args = [*w4a8_operands(), 16, torch.float32]
    args[position] = value
    with pytest.raises(ValueError, match=message):
        gemm_w4a8(*args)


def test_conv2d_refuses_an_image_that_is_not_its_rows():
    qx, ascales, none = quantize_act(torch.randn(20, 64), None, None, "int8")
    weight = quantize_weight(torch.randn(8, 64), "int8").values()
    geometry = ([1, 4, 4], [1, 1], [1, 1], [0, 0], [1, 1])
    with pytest.raises(ValueError, match=r"image: \[1, 4, 4\] needs 16 rows of qx, got 20"):
        conv2d(qx, ascales, *weight, None, none, torch.ones(8, 0), None, "int8", *geometry, torch.float32)
