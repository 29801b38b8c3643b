"""The quantize kernels' own source on the host shim: the reference's bits, real layers with K whole, every schedule alike."""

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.testing import (
    LAYER_SHAPES,
    SCHEDULES,
    Inputs,
    assert_close,
    format_name,
    outputs_as_floats,
    poisoned_empty,
    schedule,
)

simt = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
HALVES = (torch.float16, torch.bfloat16)
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
MANY_ROWS = 2048 + 9  # blocks of 32 rows
OPS_BEFORE = ("norm_quantize", "group_norm_silu_quantize")


def as_bytes(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def run(name, *args):
    with use_backend("simt"), poisoned_empty():
        return OPS[name](*args)


def check_bits(x, *options):
    """quantize_act: the reference's scales, its codes where the scale is a number, low-rank activations within their limit."""
    got, want = run("quantize_act", x, *options), OPS["quantize_act"].reference(x, *options)
    assert torch.equal(got[1].float().nan_to_num(-1), want[1].float().nan_to_num(-1))
    meaningless = want[1][:, : x.shape[0]].t().float().isnan().repeat_interleave(want[0].shape[1] // want[1].shape[0], 1)
    codes = (tensor.view(torch.uint8).masked_fill(meaningless, 0) for tensor in (got[0], want[0]))
    assert torch.equal(*codes)
    assert_close("low_rank_act", got[2], want[2], format_name(x.dtype))


def check_limits(name, *args):
    got = outputs_as_floats(name, args, run(name, *args))
    want = outputs_as_floats(name, args, OPS[name].reference(*args))
    for output, (tensor, format) in want.items():
        assert_close(f"{name} {output}", got[output][0], tensor, format)


def companions(inputs, k, rank):
    return inputs.positive(k), inputs.normal(k, rank, scale=k**-0.5) if rank else None


def norm_call(name, inputs, m, k, batch=1):
    """x and the arguments between it and those of quantize_act."""
    if name == "norm_quantize":
        return (inputs.normal(m, k), "layer", 1e-6, None, None, inputs.normal(batch, k), inputs.normal(batch, k))
    return (inputs.normal(batch, m // batch, k), 16, 1e-5, inputs.positive(k), inputs.normal(k), True)


@pytest.mark.parametrize("dtype", HALVES, ids=format_name)
@pytest.mark.parametrize("rank", [0, 16, 32, 128])
@pytest.mark.parametrize("m", [1, 77, 129])
def test_odd_sizes_and_ranks_have_the_bits_of_the_reference(dtype, rank, m):
    inputs = Inputs(dtype)
    for options in OPTIONS.values():
        check_bits(inputs.normal(m, 320), *companions(inputs, 320, rank), *options)
        check_bits(inputs.normal(m, 320), None, companions(inputs, 320, rank)[1], *options)


@pytest.mark.parametrize("format", ["uint4-shifted", "four-over-six", "int8", "fp8-segments"])
@pytest.mark.parametrize(("index", "shape"), enumerate(LAYER_SHAPES), ids=[shape.name for shape in LAYER_SHAPES])
def test_real_layers_with_k_whole(format, index, shape):
    inputs = Inputs(HALVES[index % 2])
    check_bits(inputs.normal(min(shape.m, 41), shape.k), *companions(inputs, shape.k, 32), *OPTIONS[format])


def test_a_scale_for_every_256_columns():
    inputs = Inputs(torch.bfloat16)
    check_bits(inputs.normal(35, 15360), *companions(inputs, 15360, 32), "int8", 0.0, False, 60)


@pytest.mark.parametrize("rank", [0, 32, 64])
@pytest.mark.parametrize("format", OPTIONS)
def test_blocks_of_32_rows(format, rank):
    inputs = Inputs(torch.bfloat16)
    check_bits(inputs.normal(MANY_ROWS, 320), *companions(inputs, 320, rank), *OPTIONS[format])


@pytest.mark.parametrize("k", [16, 48, 208])
@pytest.mark.parametrize("format", ["nvfp4", "int8", "fp8"])
def test_rows_that_end_inside_a_unit(format, k):
    inputs = Inputs(torch.float16)
    check_bits(inputs.normal(19, k), *companions(inputs, k, 16), format)


EXTREMES = {
    "zeros": lambda x: x * 0,
    "negative_zeros": lambda x: x * -0.0,
    "infinity": lambda x: x.index_put((torch.tensor([3]), torch.tensor([7])), torch.tensor(float("inf"), dtype=x.dtype)),
    "nan": lambda x: x.index_put((torch.tensor([3]), torch.tensor([70])), torch.tensor(float("nan"), dtype=x.dtype)),
    "largest": lambda x: x.sign() * torch.finfo(x.dtype).max,
    "smallest": lambda x: x.sign() * torch.finfo(x.dtype).smallest_normal / 4,
    "tiny_scales": lambda x: x * (7 * 2.0**-24 if x.dtype == torch.float16 else 2.0**-128),
    "one_outlier": lambda x: x.index_put((torch.tensor([3]), torch.tensor([7])), torch.tensor(6e4, dtype=x.dtype)),
}
SMOOTHS = {
    "none": lambda smooth: None,
    "ordinary": lambda smooth: smooth,
    "small": lambda smooth: smooth * 2.0**-20,
    "zero": lambda smooth: smooth.index_fill(0, torch.tensor([5]), 0),
}


@pytest.mark.parametrize("dtype", HALVES, ids=format_name)
@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_values_have_the_bits_of_the_reference(extreme, smooth, dtype):
    inputs = Inputs(dtype)
    x, divisor = EXTREMES[extreme](inputs.normal(11, 320)), SMOOTHS[smooth](inputs.positive(320))
    for options in OPTIONS.values():
        check_bits(x, divisor, None, *options)


@pytest.mark.parametrize("dtype", HALVES, ids=format_name)
def test_every_tie_goes_to_the_even_code(dtype):
    """Rows of halves and quarters whose peak makes the scale a power of two, so that quotients fall on ties."""
    ties = torch.arange(-28, 29) / 4
    x = ties.repeat(2, 6)[:, :320].to(dtype)
    x[:, ::16] = 7
    for options in OPTIONS.values():
        check_bits(x, None, None, *options)


@pytest.mark.parametrize("name", OPS_BEFORE)
@pytest.mark.parametrize("format", OPTIONS)
@pytest.mark.parametrize("dtype", HALVES, ids=format_name)
def test_norms(name, format, dtype):
    inputs = Inputs(dtype)
    check_limits(name, *norm_call(name, inputs, 77, 320), *companions(inputs, 320, 32), *OPTIONS[format])


@pytest.mark.parametrize("name", OPS_BEFORE)
@pytest.mark.parametrize("format", ["int4", "nvfp4", "int8"])
def test_norms_of_rows_too_long_to_hold_and_of_many_ranks(name, format):
    inputs = Inputs(torch.bfloat16)
    check_limits(name, *norm_call(name, inputs, 18, 5120), *companions(inputs, 5120, 96), format)


@pytest.mark.parametrize("name", OPS_BEFORE)
@pytest.mark.parametrize("m", [3 * 23, 3 * 700])
def test_batch_items_that_meet_inside_a_block(name, m):
    inputs = Inputs(torch.float16)
    check_limits(name, *norm_call(name, inputs, m, 192, batch=3), *companions(inputs, 192, 16), "int8")


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_weight_and_bias_of_a_norm_over_long_rows(norm):
    inputs = Inputs(torch.bfloat16)
    affine = inputs.positive(12288), inputs.normal(12288), None, None
    check_limits("norm_quantize", inputs.normal(17, 12288), norm, 1e-6, *affine, *companions(inputs, 12288, 32), "int4")


@pytest.mark.parametrize("name", OPS_BEFORE)
def test_a_mean_far_from_zero_leaves_the_variance(name):
    """Its square has 2^22 times the variance: sums of squares in float32 would keep three bits."""
    inputs = Inputs(torch.float16)
    x, *norm = norm_call(name, inputs, 64, 320)
    check_limits(name, x + 2048, *norm, None, None, "int8")


def test_modulation_of_two_images_in_one_tensor():
    """A chunk of the adaLN layer's output: its rows lie apart, so the launch reads a copy."""
    inputs = Inputs(torch.bfloat16)
    shift, scale = inputs.normal(2, 640).chunk(2, 1)
    check_limits("norm_quantize", inputs.normal(14, 320), "layer", 1e-6, None, None, scale, shift, None, None, "int8")


SCHEDULED = {
    "quantize_act": lambda inputs: (inputs.normal(21, 640),),
    "norm_quantize": lambda inputs: norm_call("norm_quantize", inputs, 21, 640),
    "group_norm_silu_quantize": lambda inputs: norm_call("group_norm_silu_quantize", inputs, 22, 640, batch=2),
}


@pytest.mark.parametrize("format", ["int4", "four-over-six", "int8", "fp8-segments"])
@pytest.mark.parametrize("name", SCHEDULED)
def test_every_schedule_gives_the_same_bits_and_no_race(name, format):
    inputs = Inputs(torch.bfloat16)
    args = (*SCHEDULED[name](inputs), *companions(inputs, 640, 48), *OPTIONS[format])
    want = run(name, *args)
    for seed, run_to_barrier in SCHEDULES:
        with schedule(seed, run_to_barrier, races=seed < 4):
            assert all(torch.equal(as_bytes(a), as_bytes(b)) for a, b in zip(run(name, *args), want, strict=True))


@pytest.mark.parametrize("format", ["int4", "int8"])
def test_every_schedule_of_blocks_of_32_rows(format):
    inputs = Inputs(torch.bfloat16)
    args = (inputs.normal(MANY_ROWS, 192), *companions(inputs, 192, 32), format)
    want = run("quantize_act", *args)
    for seed, run_to_barrier in SCHEDULES:
        with schedule(seed, run_to_barrier, races=seed < 2):
            got = run("quantize_act", *args)
            assert all(torch.equal(as_bytes(a), as_bytes(b)) for a, b in zip(got, want, strict=True))


def test_every_tile_fits_the_least_shared_memory():
    for m in (1, 4096):
        for k in (16, 320, 1152, 3072, 3136, 15360):
            for segments in (1, 2, 4):
                for four_bits, norm in ((True, False), (True, True), (False, False), (False, True)):
                    text = simt.describe_quantize_tile(m, k, 32, 1 if four_bits else segments, four_bits, norm)
                    assert int(text.split()[-5]) <= 99 * 1024, text


def test_rows_are_held_where_they_are_read_more_than_once_and_fit():
    assert "rows held" in simt.describe_quantize_tile(4096, 3072, 32, 1, False, True)
    assert "rows streamed" in simt.describe_quantize_tile(4096, 3136, 32, 1, False, True)
    assert "rows streamed" in simt.describe_quantize_tile(4096, 3072, 32, 1, True, False)
    assert "128 blocks of 32 rows" in simt.describe_quantize_tile(4096, 3072, 32, 1, True, False)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((torch.zeros(4, 64), None, None, "int4"), "one 16-bit dtype needed, got x float32"),
        ((torch.zeros(4, 64).half(), torch.ones(64), None, "int4"), "one 16-bit dtype needed, got x float16, smooth float32"),
        ((torch.zeros(4, 64).half(), None, torch.zeros(64, 132).half(), "int4"), "a multiple of 4 up to 128, got 132"),
        ((torch.zeros(4, 64).half(), None, None, "int8", 0.0, False, 8), r"a multiple of 16 columns, got \[4, 64\] in 8"),
        ((torch.zeros(0, 64).half(), None, None, "int4"), "must not be empty"),
    ],
    ids=["float32", "smooth", "rank", "segments", "empty"],
)
def test_what_a_kernel_cannot_take_is_refused_in_a_sentence(args, sentence):
    with use_backend("simt"), pytest.raises(RuntimeError, match=sentence):
        OPS["quantize_act"](*args)


def test_the_host_code_checks_what_it_is_given():
    call = [64, 0, 0, 64, 64, 0, 4, 8, 72, 0, 1, 0.0, 0]
    with pytest.raises(ValueError, match="K: a multiple of 64 needed, got 72"):
        simt.quantize_act(simt.QuantizeArguments(*call), 1, 0)
    call[8], call[0] = 64, 8
    with pytest.raises(ValueError, match="x: an address aligned to 16 bytes needed, got one that is 8 beyond"):
        simt.quantize_act(simt.QuantizeArguments(*call), 1, 0)
