"""The quantize ops in Triton beyond the conformance suite: the reference's bits in every format and tiling, NaN, long rows."""

from functools import partial

import pytest
import torch

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.testing import LIMITS, Inputs, assert_close, format_name, outputs_as_floats, poisoned_empty, relative_rms

pytest.importorskip("triton")
from halfbyte.triton_kernels.quantize_launch import QuantizeConfig, quantize_rows, span_width

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float16, torch.bfloat16)
# format, shift, unsigned, segments, four_over_six
OPTIONS = {
    "int4": ("int4",),
    "uint4-shifted": ("int4", 0.171875, True),
    "nvfp4": ("nvfp4",),
    "four-over-six": ("nvfp4", 0.0, False, 1, True),
    "int8": ("int8",),
    "int8-segments": ("int8", -0.25, False, 5),
    "fp8": ("fp8",),
    "fp8-segments": ("fp8", 0.0, False, 4),
}
FIVES = "int8-segments"
# Rows and columns of a tile; K = 320 fills some of them and not others.
TILES = {"many-rows": QuantizeConfig(64, 512, 4), "narrow": QuantizeConfig(16, 64, 4), "ragged": QuantizeConfig(32, 128, 4)}


def run(name, *args):
    with use_backend("triton"), poisoned_empty():
        return OPS[name](*args)


def as_bytes(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def check_codes(got, want):
    """The same scales, and the same codes where the scale is a number."""
    assert torch.equal(got[1].float().nan_to_num(-1), want[1].float().nan_to_num(-1))
    meaningless = want[1][:, : want[0].shape[0]].t().float().isnan().repeat_interleave(want[0].shape[1] // want[1].shape[0], 1)
    codes = (tensor.view(torch.uint8).masked_fill(meaningless, 0) for tensor in (got[0], want[0]))
    assert torch.equal(*codes)


def check_bits(got, x, *options):
    want = OPS["quantize_act"].reference(x, *options)
    check_codes(got, want)
    assert_close("low_rank_act", got[2], want[2], format_name(x.dtype))


def check_limits(name, *args):
    got = outputs_as_floats(name, args, run(name, *args))
    want = outputs_as_floats(name, args, OPS[name].reference(*args))
    for output, (tensor, format) in want.items():
        assert_close(f"{name} {output}", got[output][0], tensor, format)


def companions(inputs, k, rank):
    return inputs.positive(k), inputs.normal(k, rank, scale=k**-0.5) if rank else None


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rank", [0, 16, 128])
@pytest.mark.parametrize("m", [1, 77, 129])
def test_odd_sizes_and_ranks_have_the_bits_of_the_reference(m, rank, options):
    inputs = Inputs(DTYPES[m % 4 // 2], DEVICE)
    x, (smooth, proj_down) = inputs.normal(m, 320), companions(inputs, 320, rank)
    check_bits(run("quantize_act", x, smooth, proj_down, *options), x, smooth, proj_down, *options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rank", [0, 32])
@pytest.mark.parametrize("config", TILES.values(), ids=TILES)
def test_every_tiling_has_the_bits_of_the_reference(config, rank, options):
    inputs = Inputs(torch.bfloat16, DEVICE)
    x, (_, proj_down) = inputs.normal(33, 320), companions(inputs, 320, rank)
    check_bits(quantize_rows(x, None, proj_down, *options, config=config), x, None, proj_down, *options)


@pytest.mark.parametrize("options", [OPTIONS["int8"], OPTIONS["int4"]], ids=["int8", "int4"])
@pytest.mark.parametrize("rank", [0, 32])
def test_the_longest_rows_have_the_bits_of_the_reference(rank, options):
    inputs = Inputs(torch.bfloat16, DEVICE)
    x, (smooth, proj_down) = inputs.normal(9, 15360), companions(inputs, 15360, rank)
    config = QuantizeConfig(16, 2048, 8)
    check_bits(quantize_rows(x, smooth, proj_down, *options, config=config), x, smooth, proj_down, *options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=format_name)
def test_extreme_rows_have_the_bits_of_the_reference(dtype, options):
    """NaN, infinities, zeros, subnormals, the largest numbers, ties, and both zeros of an unsigned group."""
    x = Inputs(dtype, DEVICE).normal(12, 320)
    x[0, 5], x[1, 7], x[2, 9] = float("nan"), float("inf"), float("-inf")
    x[3], x[4, 64:] = 0, -0.0
    x[5] *= torch.finfo(dtype).tiny
    x[6] = x[6].sign() * torch.finfo(dtype).max
    x[7] = torch.arange(-160, 160, device=DEVICE) / 2
    x[8] = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x[9] = -x[9].abs()
    x[10, :64], x[10, 0] = 1e-3, 7
    want = OPS["quantize_act"].reference(x, None, None, *options)
    for proj_down in (None, torch.zeros(320, 16, dtype=dtype, device=DEVICE)):
        check_codes(run("quantize_act", x, None, proj_down, *options), want)


@pytest.mark.parametrize("name", ["norm_quantize", "group_norm_silu_quantize"])
@pytest.mark.parametrize("rank", [0, 32])
@pytest.mark.parametrize("batch", [1, 3])
def test_norms_stay_within_the_limits_whatever_the_batch(name, rank, batch):
    """Three batches of 26 rows begin inside blocks of rows."""
    inputs = Inputs(torch.bfloat16, DEVICE)
    if name == "norm_quantize":
        call = inputs.normal(78, 320), "layer", 1e-6, None, inputs.normal(320), inputs.normal(batch, 320), inputs.normal(2, 320)
    else:
        call = inputs.normal(batch, 26, 320), 16, 1e-5, inputs.positive(320), inputs.normal(320), True
    for options in (OPTIONS["int8-segments"], OPTIONS["uint4-shifted"], OPTIONS["four-over-six"]):
        check_limits(name, *call, *companions(inputs, 320, rank), *options)


def test_a_mean_far_from_zero_costs_no_accuracy():
    """Of the mean of squares nothing would be left: the mean is a thousand deviations."""
    inputs = Inputs(torch.float32, DEVICE)
    layer = inputs.normal(9, 320) + 1000, "layer", 1e-6, None, None, None, None, None
    calls = [("norm_quantize", (*layer, None, "int8")), ("norm_quantize", (*layer, inputs.normal(320, 16), "int8"))]
    calls += [("group_norm_silu_quantize", (inputs.normal(2, 300, 64) + 1000, 8, 1e-5, None, None, False, None, None, "int8"))]
    for name, args in calls:
        got, want = (outputs_as_floats(name, args, f(*args)) for f in (partial(run, name), OPS[name].reference))
        assert_close(name, got["qx * ascales"][0], want["qx * ascales"][0], "int8")


@pytest.mark.parametrize("rank", [0, 32])
def test_every_run_gives_the_same_bits(rank):
    inputs = Inputs(torch.bfloat16, DEVICE)
    args = inputs.normal(77, 320), "rms", 1e-6, *[None] * 4, *companions(inputs, 320, rank), "int8"
    first, second = run("norm_quantize", *args), run("norm_quantize", *args)
    assert all(torch.equal(as_bytes(a), as_bytes(b)) for a, b in zip(first, second, strict=True))


def test_rows_of_a_wider_tensor_are_read_where_they_are():
    x = Inputs(torch.bfloat16, DEVICE).normal(9, 3 * 128)[:, 128:256]
    check_bits(run("quantize_act", x, None, None, "int8"), x.contiguous(), None, None, "int8")


def test_companions_may_have_another_dtype():
    inputs, wide = Inputs(torch.bfloat16, DEVICE), Inputs(torch.float32, DEVICE)
    x, (smooth, proj_down) = inputs.normal(9, 128), companions(wide, 128, 16)
    check_bits(run("quantize_act", x, smooth, proj_down, "int8"), x, smooth, proj_down, "int8")


def test_refused_calls_say_what_was_needed():
    inputs = Inputs(torch.bfloat16, DEVICE)
    with pytest.raises(NoBackendError, match="proj_down must have a rank of at most 128, got 144"):
        run("quantize_act", inputs.normal(3, 64), None, inputs.normal(64, 144), "int8")
    with pytest.raises(NoBackendError, match=r"an empty x of shape \[0, 64\]"):
        run("quantize_act", inputs.normal(0, 64), None, None, "int8")


@pytest.mark.parametrize(("k", "group", "limit", "width"), [(3072, 64, 4096, 3072), (12288, 64, 4096, 4096), (1152, 16, 512, 384)])
def test_spans_are_equal_parts_of_whole_groups(k, group, limit, width):
    assert span_width(k, group, limit) == width


def test_rounding_is_that_of_the_format():
    """What four bits lose of a normal distribution, so that a kernel and a reference wrong in the same way would show."""
    inputs = Inputs(torch.bfloat16, DEVICE)
    for format in ("int4", "nvfp4", "int8", "fp8"):
        args = inputs.normal(16, 512), None, None, format
        restored, _ = outputs_as_floats("quantize_act", args, run("quantize_act", *args))["qx * ascales"]
        assert LIMITS[format].rounding / 3 < relative_rms(restored, args[0].float()) < LIMITS[format].rounding
