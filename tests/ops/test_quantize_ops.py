"""What the quantizing ops compute, against plain float PyTorch."""

import pytest
import torch
from torch.nn import functional as F

from halfbyte.ops import group_norm_silu_quantize, norm_quantize, padded_rows, quantize_act
from halfbyte.ops.operands import dequantize_act
from halfbyte.testing import LIMITS, relative_rms


def decoded(outputs, format, unsigned=False):
    return dequantize_act(*outputs[:2], format, unsigned)


@pytest.mark.parametrize(("rows", "padded"), [(0, 0), (1, 8), (8, 8), (9, 16), (1000, 1000)])
def test_rows_are_padded_to_eight(rows, padded):
    assert padded_rows(rows) == padded
    qx, ascales, low_rank_act = quantize_act(torch.randn(rows, 128), None, None, "int4")
    assert qx.shape == (rows, 64) and ascales.shape == (2, padded) and low_rank_act.shape == (rows, 0)
    assert (ascales[:, rows:] == 1).all()


@pytest.mark.parametrize("format", ["int4", "nvfp4", "int8", "fp8"])
def test_the_error_is_that_of_the_format(format):
    x = torch.randn(40, 256)
    error = relative_rms(decoded(quantize_act(x, None, None, format), format), x)
    assert LIMITS[format].rounding / 3 < error < LIMITS[format].rounding


@pytest.mark.parametrize("format", ["int4", "nvfp4", "int8", "fp8"])
def test_smoothing_divides_and_the_low_rank_branch_reads_the_raw_input(format):
    x, smooth, proj_down = torch.randn(9, 128), torch.rand(128) + 0.2, torch.randn(128, 32)
    outputs = quantize_act(x, smooth, proj_down, format)
    assert torch.equal(decoded(outputs, format), decoded(quantize_act(x / smooth, None, None, format), format))
    assert torch.allclose(outputs[2], x @ proj_down, atol=1e-4)


def test_the_shift_is_added_before_smoothing_and_makes_gelu_unsigned():
    x, smooth = F.gelu(torch.randn(33, 192) * 2), torch.rand(192) + 0.5
    signed = decoded(quantize_act(x, smooth, None, "int4"), "int4")
    outputs = quantize_act(x, smooth, None, "int4", shift=0.171875, unsigned=True)
    shifted = decoded(outputs, "int4", unsigned=True)
    assert shifted.min() >= 0
    back = shifted - 0.171875 / smooth
    assert relative_rms(back, x / smooth) < 0.75 * relative_rms(signed, x / smooth)


def test_segments_have_scales_of_their_own():
    x = torch.cat([torch.randn(5, 64), 1000 * torch.randn(5, 64)], 1)
    one, two = (decoded(quantize_act(x, None, None, "int8", segments=s), "int8")[:, :64] for s in (1, 2))
    assert relative_rms(two, x[:, :64]) < 0.02 < relative_rms(one, x[:, :64])


def test_int4_scales_have_the_type_of_x_and_the_codes_are_computed_with_them():
    x = torch.randn(6, 64, dtype=torch.bfloat16)
    qx, ascales, _ = quantize_act(x, None, None, "int4")
    assert ascales.dtype == torch.bfloat16
    step = ascales[0, :6].float().unsqueeze(1)
    assert ((decoded((qx, ascales), "int4") - x.float()).abs() <= 0.54 * step).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "int3"}, "format: one of int4, .* got 'int3'"),
        ({"x": torch.ones(2, 100)}, "x: K must be a multiple of 64, got 100"),
        ({"x": torch.ones(128)}, r"x: 2 dimensions needed, got shape \[128\]"),
        ({"x": torch.ones(2, 128).double()}, "x: dtype float32 or bfloat16 or float16 needed, got float64"),
        ({"smooth": torch.ones(64)}, r"smooth: shape \[128\] needed, got \[64\]"),
        ({"proj_down": torch.ones(32, 128)}, r"proj_down: shape \[128, 128\] needed, got \[32, 128\]"),
        ({"format": "int8", "unsigned": True}, "unsigned: only int4 .* got format 'int8'"),
        ({"format": "int8", "segments": 3}, "segments: a divisor of K 128 needed"),
        ({"segments": 2}, "segments: a divisor of K 128 needed, and 1 for the 4-bit formats, got 2 with 'int4'"),
        ({"four_over_six": True}, "four_over_six: only nvfp4 has it, got format 'int4'"),
    ],
    ids=["format", "k", "dim", "dtype", "smooth", "proj_down", "unsigned", "segments", "4-bit-segments", "four_over_six"],
)
def test_a_wrong_argument_is_named(changes, message):
    args = {"x": torch.ones(2, 128), "smooth": None, "proj_down": None, "format": "int4"} | changes
    with pytest.raises(ValueError, match=message):
        quantize_act(**args)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_norm_quantize_is_the_norm_then_quantize_act(norm, dtype):
    x, weight, bias = torch.randn(12, 128, dtype=dtype) + 1, torch.rand(128), torch.randn(128)
    mod_scale, mod_shift = torch.randn(2, 3, 128).unbind()
    proj_down = torch.randn(128, 16)
    wide = x.double()
    y = F.layer_norm(wide, (128,), eps=1e-6) if norm == "layer" else F.rms_norm(wide, (128,), eps=1e-6)
    y = (y * weight + bias).unflatten(0, (3, 4)) * (1 + mod_scale.unsqueeze(1)) + mod_shift.unsqueeze(1)
    want = quantize_act(y.flatten(0, 1).to(dtype), None, proj_down, "int8")
    got = norm_quantize(x, norm, 1e-6, weight, bias, mod_scale, mod_shift, None, proj_down, "int8")
    assert relative_rms(decoded(got, "int8"), decoded(want, "int8")) < LIMITS["int8"].agreement
    assert relative_rms(got[2], want[2]) < LIMITS[str(dtype).removeprefix("torch.")].agreement


def test_norm_quantize_refuses_modulation_that_does_not_divide_the_rows():
    with pytest.raises(ValueError, match="mod_shift: its 3 rows must divide the 4 rows of x"):
        norm_quantize(torch.ones(4, 64), "layer", 1e-6, None, None, None, torch.ones(3, 64), None, None, "int4")
    with pytest.raises(ValueError, match="norm: one of layer, rms needed, got 'batch'"):
        norm_quantize(torch.ones(4, 64), "batch", 1e-6, None, None, None, None, None, None, "int4")


@pytest.mark.parametrize("silu", [True, False], ids=["silu", "plain"])
def test_group_norm_silu_quantize_is_its_parts(silu):
    x, weight, bias = torch.randn(2, 15, 128) * 3 + 1, torch.rand(128), torch.randn(128)
    y = F.group_norm(x.transpose(1, 2), 32, weight, bias, 1e-5).transpose(1, 2)
    want = quantize_act((F.silu(y) if silu else y).flatten(0, 1), None, None, "int8")
    got = group_norm_silu_quantize(x, 32, 1e-5, weight, bias, silu, None, None, "int8")
    assert relative_rms(decoded(got, "int8"), decoded(want, "int8")) < LIMITS["int8"].agreement


def test_group_norm_refuses_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="num_groups: a divisor of the 64 channels needed, got 48"):
        group_norm_silu_quantize(torch.ones(1, 4, 64), 48, 1e-5, None, None, True, None, None, "int4")
