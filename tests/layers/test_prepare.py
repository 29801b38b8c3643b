"""Every numerics computes what its name says: the ops' own composition, or the float weight."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from halfbyte import ops
from halfbyte.formats import dequantize_weight, int4, int8, unpack_nibbles
from halfbyte.layers import LowBitWeight, install, prepare
from halfbyte.testing import relative_rms

ODD_ROWS = 13


def by_ops(linear, x, act_unsigned=False):
    """The layer as a GPU runs it: quantize, then one fused product."""
    weight, shift = linear.weight, linear.weight.layer_format.act_shift
    storage, bias, rows = weight.storage, linear.bias.float(), x.reshape(-1, x.shape[-1])
    activation, smooth = weight.layer_format.activation, storage.get("smooth_factor")
    down, up = storage.get("proj_down"), storage.get("proj_up", x.new_empty(weight.shape[0], 0))
    if shift:
        # The kernel's bias takes the shift off again.
        ones = torch.full((1, x.shape[-1]), shift) / (1 if smooth is None else smooth.float())
        none = (ones[:, :0], up[:, :0].float(), None, torch.float32)
        bias = bias - ops.gemm_w4a16(ones, None, storage["qweight"], storage["wscales"], None, *none)[0]
    wtscale = [storage["wtscale"]] if "wtscale" in storage else []
    if activation is None:
        low_rank_act = rows.float() @ down.float() if down is not None else rows.float()[:, :0]
        arguments = (storage["qweight"], storage["wscales"], storage.get("wtscale"), low_rank_act.to(x.dtype), up)
        return ops.gemm_w4a16(rows, smooth, *arguments, bias, x.dtype).reshape(*x.shape[:-1], -1)
    four_over_six = weight.layer_format.four_over_six
    qx, ascales, low_rank_act = ops.quantize_act(rows, smooth, down, activation, shift, shift > 0, 1, four_over_six)
    if activation == "int4":
        y = ops.gemm_w4a4(qx, ascales, storage["qweight"], storage["wscales"], low_rank_act, up, bias, shift > 0, x.dtype)
    else:
        y = ops.gemm_nvfp4(qx, ascales, storage["qweight"], storage["wscales"], *wtscale, low_rank_act, up, bias, x.dtype)
    return y.reshape(*x.shape[:-1], -1)


CASES = {
    "w4a4": {},
    "w4a4-plain": {"rank": 0, "smooth": False},
    "w4a4-after-gelu": {"act_shift": 0.171875},
    "w4a4-after-gelu-unsmoothed": {"act_shift": 0.171875, "smooth": False},
    "w4a16": {"activation": None, "rank": 0, "smooth": False},
    "w4a16-low-rank": {"activation": None},
    "nvfp4": {"weight": "nvfp4", "activation": "nvfp4"},
    "nvfp4-four-over-six": {"weight": "nvfp4", "activation": "nvfp4", "four_over_six": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("format", CASES.values(), ids=CASES.keys())
def test_linear_equals_the_composition_of_ops(make_linear, format, dtype):
    linear = make_linear(dtype=dtype, **format)
    report = prepare(linear, "nvfp4" if format.get("weight") == "nvfp4" else "w4a4")
    x = F.gelu(2 * torch.randn(3, ODD_ROWS, 128, dtype=dtype))
    want = by_ops(linear, x)
    # bfloat16 outputs round alike but for sums that fall on either side of a tie.
    assert relative_rms(linear(x), want) < (1e-5 if dtype == torch.float32 else 1e-3)
    assert report.layers[0].kind.startswith("emulated")


def test_conv2d_quantizes_the_channels_of_each_pixel(make_conv):
    conv = make_conv(channels=128, rank=0)
    prepare(conv, "w4a4")
    x = torch.randn(2, 128, 7, 5)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 128)
    qx, ascales, _ = ops.quantize_act(pixels, conv.weight.smooth_factor, None, "int4")
    rounded = int4.dequantize(unpack_nibbles(qx, signed=True), ascales[:, : len(pixels)].t()) * conv.weight.smooth_factor
    image = rounded.reshape(2, 7, 5, 128).permute(0, 3, 1, 2)
    torch.testing.assert_close(conv(x), F.conv2d(image, conv.weight.dequantize(), conv.bias, padding=1), atol=1e-4, rtol=1e-4)


def test_conv2d_of_one_tap_equals_the_linear_layer(make_conv, make_linear):
    torch.manual_seed(0)
    linear = make_linear(act_shift=0.171875)
    conv = nn.Conv2d(128, 72, 1).requires_grad_(False)
    install(conv, LowBitWeight(linear.weight.storage, linear.weight.layer_format, (72, 128, 1, 1), torch.float32))
    conv.bias = linear.bias
    prepare(conv, "w4a4"), prepare(linear, "w4a4")
    x = F.gelu(torch.randn(2, 128, 3, 5))
    torch.testing.assert_close(conv(x).movedim(1, -1), linear(x.movedim(1, -1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weight", ["int4", "nvfp4"])
def test_w4a8_is_one_int8_scale_per_channel_and_token(make_linear, weight):
    linear = make_linear(weight=weight, activation=weight)
    prepare(linear, "w4a8")
    x = torch.randn(ODD_ROWS, 128)
    storage = linear.weight.storage
    smooth = storage["smooth_factor"]
    residual = dequantize_weight(storage["qweight"], storage["wscales"], storage.get("wtscale"), weight)
    codes, scales = int8.quantize(residual)
    qx, ascales, low_rank_act = ops.quantize_act(x, smooth, storage["proj_down"], "int8")
    want = ops.gemm_w8a8(qx, ascales, codes, scales.squeeze(-1), low_rank_act, storage["proj_up"], linear.bias, torch.float32)
    assert relative_rms(linear(x), want) < 1e-5
    assert relative_rms(linear(x), F.linear(x, linear.weight.dequantize(), linear.bias)) < 0.03


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_native_runs_the_kind_it_reports(make_linear, make_conv, kind, dtype, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", kind)
    linear = make_linear(dtype=dtype)
    report = prepare(linear)
    assert list(report.kinds) == ["int8 w8a8" if kind == "int8" else f"expanded {kind}"]
    assert report.layers[0].reason == f"HALFBYTE_CPU_KIND is {kind}"
    if kind != "int8":
        assert report.prepared_bytes == 72 * 128 * getattr(torch, kind).itemsize
    x = torch.randn(2, ODD_ROWS, 128, dtype=dtype)
    want = F.linear(x.float(), linear.weight.dequantize(), linear.bias.float())
    limit = 0.02 if kind == "int8" else 0.006 if torch.bfloat16 in (dtype, getattr(torch, kind)) else 1e-6
    assert linear(x).dtype == dtype
    assert relative_rms(linear(x), want) < limit


def test_layers_that_int8_would_round_stay_float(make_linear, make_conv, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_KIND", "int8")
    model = nn.ModuleList([make_linear(activation=None), make_conv(activation=None), make_linear()])
    report = prepare(model)
    assert [layer.kind for layer in report] == ["expanded float32", "expanded float32", "int8 w8a8"]
    assert report.kinds == {"expanded float32": 2, "int8 w8a8": 1}
    assert [layer.name for layer in report] == ["0", "1", "2"]
    assert report.prepared_bytes == sum(layer.prepared_bytes for layer in report)


@pytest.mark.parametrize(
    ("numerics", "message"),
    [
        ("nvfp4", "1: numerics nvfp4 needs nvfp4 storage, got int4"),
        ("w4a4", "0: numerics w4a4 needs int4 storage, got nvfp4"),
        ("w2a2", "0: numerics: one of native, w4a4, w4a8, nvfp4 needed, got 'w2a2'"),
    ],
)
def test_numerics_that_do_not_fit_name_the_layer_and_change_nothing(make_linear, numerics, message):
    model = nn.ModuleList([make_linear(weight="nvfp4", activation="nvfp4"), make_linear()])
    with pytest.raises(ValueError, match=message):
        prepare(model, numerics)
    assert [layer.weight.numerics for layer in model] == ["native", "native"]


def test_prepared_form_is_built_once_and_never_stored(make_linear):
    linear = make_linear()
    report = prepare(linear, "w4a4")
    form = linear.weight.prepared()
    linear(torch.randn(3, 128))
    assert linear.weight.prepared() is form
    assert linear.weight.stored_bytes == report.layers[0].stored_bytes
    assert set(linear.weight.storage) == set(linear.weight.layer_format.tensors(72, 128))
    assert form.nbytes == report.prepared_bytes


def test_lazy_and_prepared_layers_agree(make_linear):
    linear = make_linear()
    x = torch.randn(3, 128)
    lazy = linear(x)
    prepare(linear)
    assert torch.equal(linear(x), lazy)
