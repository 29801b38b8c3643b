"""A low-bit weight stands for its float weight in the module it sits in."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from halfbyte.formats import LayerFormat
from halfbyte.layers import LowBitWeight, install, low_bit_layers
from halfbyte.testing import LIMITS, relative_rms

FORMATS = [
    {"weight": "int4", "activation": "int4"},
    {"weight": "int4", "activation": None, "rank": 0, "smooth": False},
    {"weight": "nvfp4", "activation": "nvfp4", "four_over_six": True},
    {"weight": "int8", "activation": "int8", "rank": 0},
    {"weight": "fp8", "activation": "fp8", "smooth": False},
]
NAMES = ["int4", "int4-w4a16", "nvfp4", "int8", "fp8"]


@pytest.mark.parametrize("format", FORMATS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_from_float_stays_within_the_rounding_of_its_format(make_linear, format, dtype):
    torch.manual_seed(1)
    float_weight = nn.Linear(128, 72, dtype=dtype).weight.data
    torch.manual_seed(1)
    weight = make_linear(dtype=dtype, **format).weight
    assert weight.dtype == dtype and weight.shape == float_weight.shape
    # Uniform weights and smoothing shift the error of normal values a little, the low rank lowers it.
    assert relative_rms(weight.dequantize(), float_weight) < 1.3 * LIMITS[format["weight"]].rounding


@pytest.mark.parametrize("format", FORMATS, ids=NAMES)
def test_stored_tensors_are_those_of_the_format(make_linear, format):
    weight = make_linear(**format).weight
    schema = weight.layer_format.tensors(72, 128, dtype=torch.float32)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weight.storage.items()} == schema
    assert weight.stored_bytes == weight.layer_format.stored_bytes(72, 128, dtype=torch.float32)


@pytest.mark.parametrize("shape", [(5, 128), (2, 3, 128), (128,), (0, 128)], ids=str)
def test_linear_runs_the_dequantized_weight(make_linear, shape):
    linear = make_linear(activation=None)
    x = torch.randn(shape)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight.dequantize(), linear.bias))
    assert type(linear(x)) is torch.Tensor


@pytest.mark.parametrize("geometry", [{}, {"stride": 2}, {"padding": 0, "dilation": 2}, {"kernel": 1, "padding": 0}], ids=str)
def test_conv2d_runs_the_dequantized_weight(make_conv, geometry):
    conv = make_conv(activation=None, **geometry)
    x = torch.randn(2, 64, 9, 7)
    want = F.conv2d(x, conv.weight.dequantize(), conv.bias, conv.stride, conv.padding, conv.dilation)
    torch.testing.assert_close(conv(x), want)


def test_convolution_columns_are_taps_first(make_conv):
    conv = make_conv(rank=0, smooth=False)
    weight = conv.weight
    # Group 0 of row 0 holds the 64 input channels of the first tap.
    codes = torch.stack([weight.qweight[0, :32] << 4 >> 4, weight.qweight[0, :32] >> 4], dim=-1).flatten()
    torch.testing.assert_close(weight.dequantize()[0, :, 0, 0], codes.float() * weight.wscales[0, 0])


def test_other_operations_see_the_dequantized_weight(make_linear):
    weight = make_linear().weight
    float_weight = weight.dequantize()
    assert torch.equal(weight * 2, float_weight * 2)
    assert torch.equal(weight[3:5], float_weight[3:5])
    assert torch.equal(weight.t() @ weight, float_weight.t() @ float_weight)
    assert torch.equal(torch.zeros(72, 128).copy_(weight), float_weight)
    assert torch.equal(torch.linalg.vector_norm(weight, dim=1), torch.linalg.vector_norm(float_weight, dim=1))
    assert torch.isfinite(weight).all()


def test_in_place_writes_are_refused_by_name(make_linear):
    weight = make_linear().weight
    with pytest.raises(NotImplementedError, match=r"only add_, sub_, copy_ .* got aten.mul_"):
        weight.mul_(2)
    with pytest.raises(NotImplementedError, match="got aten.zero_"):
        weight.zero_()


def test_repr_is_one_short_line(make_linear):
    assert repr(make_linear().weight) == "LowBitWeight([72, 128], int4 rank 8, torch.float32, cpu)"


def test_module_stays_what_it_was(make_linear, make_conv):
    model = nn.ModuleDict({"linear": make_linear(), "conv": make_conv(), "plain": nn.Linear(3, 3)})
    assert type(model["linear"]) is nn.Linear and type(model["conv"]) is nn.Conv2d
    assert isinstance(model["linear"].weight, nn.Parameter) and not model["linear"].weight.requires_grad
    assert list(low_bit_layers(model)) == ["linear", "conv"]
    assert model["linear"].weight.numel() == 72 * 128 and model["linear"].in_features == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qweight": torch.zeros(72, 63, dtype=torch.int8)}, r"qweight: torch.int8 \[72, 64\] needed, got torch.int8 \[72, 63\]"),
        ({"wscales": torch.ones(2, 72, dtype=torch.float64)}, r"wscales: torch.bfloat16 \[2, 72\] needed, got torch.float64"),
        ({"proj_up": torch.ones(72, 8).half()}, r"proj_up: torch.bfloat16 \[72, 8\] needed, got torch.float16"),
        ({"wtscale": torch.ones(1)}, "wtscale: not stored in this format"),
        ({"proj_up": None}, "proj_up: needed for int4 storage, got only qweight"),
        ({"smooth_factor": torch.ones(128, device="meta", dtype=torch.bfloat16)}, "smooth_factor: must be on cpu .*, got meta"),
    ],
    ids=["shape", "dtype", "mixed", "unknown", "missing", "device"],
)
def test_wrong_storage_is_named(make_linear, change, message):
    weight = make_linear().weight
    storage = {name: tensor for name, tensor in (weight.storage | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        LowBitWeight(storage, weight.layer_format, (72, 128), torch.float32)


@pytest.mark.parametrize(
    ("shape", "format", "given", "message"),
    [
        ((72, 100), LayerFormat("int4", "int4"), {}, "in_features 100 is not a multiple of group_size 64"),
        ((71, 128), LayerFormat("int4", "int4"), {}, "out_features 71 is not a multiple of 8"),
        ((72, 128), LayerFormat("int4", "int4", smooth=True), {}, "smooth_factor: needed in this format, got None"),
        ((72, 128), LayerFormat("int4", "int4"), {"proj_up": torch.ones(72, 4)}, "proj_up: not stored in this format, got one"),
    ],
    ids=["K", "N", "no-smooth-factor", "no-rank"],
)
def test_from_float_says_what_does_not_fit(shape, format, given, message):
    with pytest.raises(ValueError, match=message):
        LowBitWeight.from_float(torch.randn(shape), format, **given)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(64, 72), r"weight: shape \[72, 64\] needed, got \[72, 128\]"),
        (nn.Conv2d(128, 72, 1, groups=2), "1 group needed, got 2"),
        (nn.LayerNorm(128), "an nn.Linear or nn.Conv2d needed, got LayerNorm"),
    ],
    ids=["shape", "groups", "class"],
)
def test_install_says_what_does_not_fit(make_linear, module, message):
    with pytest.raises(ValueError, match=message):
        install(module, make_linear().weight)
