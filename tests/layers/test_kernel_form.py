"""The form GPUs run, on the references: it computes what the emulation of the same numerics says."""

import pytest
import torch

from halfbyte.layers import branch
from halfbyte.layers.build_kernel_form import for_gpu, kernel_form
from halfbyte.layers.emulated import emulate
from halfbyte.layers.kernel_form import reason_against
from halfbyte.ops import backends, use_backend
from halfbyte.testing import assert_close, relative_rms

KINDS = {
    "int4": ({"weight": "int4", "activation": "int4"}, "int4", "w4a4"),
    "int4-after-gelu": ({"weight": "int4", "activation": "int4", "act_shift": 0.171875}, "int4", "w4a4"),
    "int4-folded": ({"weight": "int4", "activation": "int4"}, "int8", "w4a8"),
    "nvfp4": ({"weight": "nvfp4", "activation": "nvfp4"}, "nvfp4", "nvfp4"),
    "nvfp4-four-over-six": ({"weight": "nvfp4", "activation": "nvfp4", "four_over_six": True}, "nvfp4", "nvfp4"),
    "nvfp4-folded": ({"weight": "nvfp4", "activation": "nvfp4"}, "int8", "w4a8"),
    "16-bit-activations": ({"weight": "int4", "activation": None}, None, "w4a4"),
}


def emulated(weight, numerics, x, bias, *geometry):
    form = emulate(weight, fold_to_int8=numerics == "w4a8")
    return form.conv2d(x, bias, *geometry) if geometry else form.linear(x, bias)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("rank", [0, 8, 12])
def test_a_linear_layer(make_linear, kind, bias, rank):
    format, activation, numerics = KINDS[kind]
    layer = make_linear(bias=bias, dtype=torch.bfloat16, rank=rank, **format)
    x = torch.randn(2, 5, 128, dtype=torch.bfloat16)
    form = kernel_form(layer.weight, activation, "asked for")
    got, want = form.linear(x, layer.bias), emulated(layer.weight, numerics, x, layer.bias)
    assert got.shape == want.shape and got.dtype == want.dtype
    # Folding may merge the branch into the codes, which changes the sum by less than the codes' own rounding.
    limit = "int8" if activation == "int8" and rank else "bfloat16"
    if limit == "bfloat16":
        assert_close(kind, got, want, limit)
    else:
        assert relative_rms(got, want) < 0.03


@pytest.mark.parametrize("kind", ["int4", "nvfp4", "int4-folded"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0)])
def test_a_convolution(make_conv, kind, kernel, stride, padding):
    format, activation, numerics = KINDS[kind]
    layer = make_conv(kernel=kernel, stride=stride, padding=padding, dtype=torch.bfloat16, rank=8, **format)
    x = torch.randn(2, 64, 6, 5, dtype=torch.bfloat16)
    geometry = (layer.stride, layer.padding, layer.dilation)
    form = kernel_form(layer.weight, activation, "asked for")
    got, want = form.conv2d(x, layer.bias, *geometry), emulated(layer.weight, numerics, x, layer.bias, *geometry)
    assert got.shape == want.shape
    assert relative_rms(got, want) < (0.03 if activation == "int8" else 4e-3)


def test_many_rows_of_sixteen_bit_activations(make_linear):
    layer = make_linear(dtype=torch.float16, weight="int4", activation=None)
    x = torch.randn(1100, 128, dtype=torch.float16)
    got = kernel_form(layer.weight, None, "asked for").linear(x, layer.bias)
    assert_close("1100 rows", got, emulated(layer.weight, "w4a4", x, layer.bias), "float16")


def test_a_fused_adapter_stays_beside_the_codes(make_linear):
    layer = make_linear(dtype=torch.bfloat16)
    x = torch.randn(3, 128, dtype=torch.bfloat16)
    before = kernel_form(layer.weight, "int4", "asked for").linear(x, layer.bias)
    up, down = torch.randn(72, 2), torch.randn(2, 128) * 0.1
    layer.weight.data += (up @ down).to(torch.bfloat16)
    form = kernel_form(layer.weight, "int4", "asked for")
    assert branch.branches_of_side(layer.weight) and relative_rms(form.linear(x, layer.bias), before) > 0.1
    assert_close("adapter", form.linear(x, layer.bias), emulated(layer.weight, "w4a4", x, layer.bias), "bfloat16")


@pytest.mark.skipif("gemm_w4a4" not in backends()["simt"], reason="the host shim is built with HALFBYTE_SIMT=1")
def test_a_layer_on_the_kernels_own_source(make_linear):
    layer = make_linear(dtype=torch.bfloat16, rank=16)
    x = torch.randn(9, 128, dtype=torch.bfloat16)
    form = kernel_form(layer.weight, "int4", "asked for")
    with use_backend("simt"):
        got = form.linear(x, layer.bias)
    assert_close("simt", got, form.linear(x, layer.bias), "bfloat16")


def test_what_no_kernel_computes_is_said(make_linear, make_conv):
    assert "not float32" in reason_against(make_linear().weight, "int4")
    assert "no multiple of 64" in reason_against(make_conv(channels=16, dtype=torch.bfloat16, weight="nvfp4", activation="nvfp4").weight, "nvfp4")
    assert "16-bit activations" in reason_against(make_conv(dtype=torch.bfloat16, activation=None).weight, None)
    assert reason_against(make_linear(dtype=torch.bfloat16).weight, "int4") is None


def test_without_kernels_a_gpu_runs_the_dense_weight_and_says_why(make_linear, monkeypatch):
    from halfbyte.layers import build_kernel_form

    weight = make_linear(dtype=torch.bfloat16).weight
    assert for_gpu(weight, (7, 5)).reason == "kernels are made for sm_80 and later"
    monkeypatch.setattr(build_kernel_form, "missing_kernels", lambda: "no CUDA kernels were built here")
    assert for_gpu(weight, (8, 9)).kind == "expanded bfloat16"
    monkeypatch.setattr(build_kernel_form, "missing_kernels", lambda: None)
    assert for_gpu(weight, (8, 9)).kind == "kernel int4" and for_gpu(weight, (9, 0)).kind == "kernel int8"
    assert for_gpu(make_linear().weight, (8, 9)).reason == "kernels compute in float16 or bfloat16, not float32"


def test_stored_codes_are_run_in_place(make_linear):
    weight = make_linear(dtype=torch.bfloat16, rank=8).weight
    form = kernel_form(weight, "int4", "asked for")
    assert form.qweight is weight.qweight and form.nbytes == 0
    assert kernel_form(weight, "int8", "asked for").nbytes > weight.qweight.nbytes
