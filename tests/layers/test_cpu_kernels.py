"""Layers on the C++ kernels compute what the PyTorch code does that runs without them."""

import pytest
import torch

from halfbyte.env import extension
from halfbyte.formats import LayerFormat, dequantize_weight, quantize_weight
from halfbyte.layers import int8_linear, merged_branch, prepare
from halfbyte.layers.fold import fold
from halfbyte.layers.storage import dequantize_residual
from halfbyte.ops.cpu import PackedWeight
from halfbyte.testing import LIMITS, relative_rms

pytestmark = pytest.mark.skipif(extension() is None, reason="the C++ extension was not built")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("size", [(1, 64), (7, 192), (1000, 320)], ids=str)
def test_expand_int4(size, scale_dtype):
    stored = quantize_weight(torch.randn(size), "int4", scale_dtype)
    want = dequantize_weight(stored["qweight"], stored["wscales"], None, "int4")
    assert torch.equal(dequantize_residual(stored, LayerFormat("int4", None)), want)


@pytest.mark.parametrize("threads", [1, 3])
def test_expand_int4_on_threads(threads):
    from halfbyte import _C

    stored = quantize_weight(torch.randn(2049, 1024), "int4", torch.float32)
    scales, out = stored["wscales"].t().float().contiguous(), torch.empty(2049, 1024)
    _C.expand_int4(stored["qweight"].data_ptr(), scales.data_ptr(), out.data_ptr(), 2049, 1024, threads)
    assert torch.equal(out, dequantize_weight(stored["qweight"], stored["wscales"], None, "int4"))


@DTYPES
def test_int8_layers_give_the_same_bits_through_the_ops(make_linear, dtype, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    linear = make_linear(dtype=dtype, rank=0)
    folded = fold(linear.weight.storage, linear.weight.layer_format, (72, 128))
    x = torch.randn(11, 128, dtype=dtype)
    assert isinstance(linear.weight.prepared().weight, PackedWeight)
    assert torch.equal(linear(x), int8_linear.by_ops(folded, x, linear.bias))


@DTYPES
def test_a_branch_beside_int8_is_the_composition_of_ops(make_linear, dtype, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    monkeypatch.setattr(merged_branch, "MERGED_GROWTH", -2)
    linear = make_linear(dtype=dtype)
    folded = fold(linear.weight.storage, linear.weight.layer_format, (72, 128))
    assert folded.rank == linear.weight.prepared().weight.rank == 8
    x = torch.randn(11, 128, dtype=dtype)
    limit = LIMITS["float32" if dtype == torch.float32 else "bfloat16"].agreement
    assert relative_rms(linear(x), int8_linear.by_ops(folded, x, linear.bias)) < limit


CONVOLUTIONS = [
    {},
    {"kernel": 1, "padding": 0},
    {"stride": 2, "padding": (1, 0)},
    {"padding": "same", "dilation": 2},
    {"kernel": (2, 4), "padding": "same"},
    {"padding": "valid", "smooth": False},
    {"rank": 0, "weight": "nvfp4", "activation": "nvfp4"},
]


@DTYPES
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_int8_convolutions_are_as_close_as_int8_is(make_conv, options, dtype, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    conv = make_conv(dtype=dtype, **options)
    x = torch.randn(3, 64, 9, 12, dtype=dtype)
    weight, bias = conv.weight.dequantize(), conv.bias.float()
    want = torch.nn.functional.conv2d(x.float(), weight, bias, conv.stride, conv.padding, conv.dilation)
    report = prepare(conv)
    assert [layer.kind for layer in report] == ["int8 w8a8"]
    assert report.prepared_bytes >= conv.weight.numel()
    assert conv(x).dtype == dtype and relative_rms(conv(x), want) < 0.02


def test_an_adapter_runs_beside_an_int8_convolution(make_conv, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    conv, x = make_conv(stride=2), torch.randn(2, 64, 8, 8)
    conv.weight.data += 0.1 * torch.randn(24, 64, 3, 3)
    want = torch.nn.functional.conv2d(x, conv.weight.dequantize(), conv.bias, 2, 1)
    assert conv.weight.prepared().branches and relative_rms(conv(x), want) < 0.02
