"""The convolutions' own source on the host shim: real channels with K whole, odd images and geometries, every schedule alike."""

import sys
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from halfbyte.formats import dequantize_weight
from halfbyte.ops import OPS, use_backend
from halfbyte.ops.conv2d import out_size
from halfbyte.ops.native.register import KERNELS, cuda_rejects
from halfbyte.ops.operands import dequantize_act
from halfbyte.testing import SCHEDULES, Inputs, assert_close, format_name, relative_rms, schedule

kernels = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
HALVES = (torch.float16, torch.bfloat16)
FORMATS = ("int4", "int8")
# The first has few enough output pixels for the small tile, the second needs the large one.
IMAGES = ([2, 5, 7], [3, 13, 14])
# kernel, stride, padding, dilation
SAME_3X3 = ([3, 3], [1, 1], [1, 1], [1, 1])


def operands(
    format, image, channels, n, geometry=SAME_3X3, dtype=torch.float16, rank=32, bias=True, segments=1, out_dtype=None, seed=0
):
    inputs = Inputs(dtype, seed=seed)
    batch, height, width = image
    x = inputs.normal(batch * height * width, channels)
    qx, ascales, _ = OPS["quantize_act"].reference(x, None, None, format, segments=segments)
    kernel = geometry[0]
    weight = (*inputs.weight(n, kernel[0] * kernel[1] * channels, format), None)[:3]
    out_height, out_width = out_size(image, *geometry)
    companions = inputs.companions(batch * out_height * out_width, n, rank, bias)
    return (qx, ascales, *weight, *companions, format, image, *geometry, out_dtype or dtype)


def on_simt(args, name="conv2d"):
    with use_backend("simt"):
        return OPS[name](*args)


def check(args, name="conv2d"):
    got, want = on_simt(args, name), OPS[name].reference(*args)
    assert got.dtype == want.dtype
    assert_close(name, got, want, format_name(want.dtype))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("image", "channels", "stride"),
    [([2, 8, 9], 1280, 1), ([1, 23, 24], 640, 1), ([2, 24, 24], 320, 1), ([1, 24, 18], 640, 2)],
    ids=["1280", "640", "320", "640-down"],
)
def test_layers_of_sdxl_with_k_whole(format, image, channels, stride):
    geometry = ([3, 3], [stride] * 2, [1, 1], [1, 1])
    check(operands(format, image, channels, 136, geometry, torch.bfloat16 if channels == 640 else torch.float16))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("image", [[2, 5, 7], [2, 1, 1], [1, 3, 130]], ids=["5x7", "1x1", "3x130"])
@pytest.mark.parametrize("kernel", [[1, 1], [3, 3], [5, 5], [1, 3]], ids=["1x1", "3x3", "5x5", "1x3"])
def test_odd_images_in_every_geometry(format, image, kernel):
    there = 0
    for index, (stride, padding, dilation) in enumerate(product([1, 2], [0, 1, 2], [1, 2])):
        geometry = (kernel, [stride] * 2, [padding] * 2, [dilation] * 2)
        if min(out_size(image, *geometry)) > 0:
            check(operands(format, image, 64, 72, geometry, HALVES[index % 2], rank=0))
            there += 1
    assert there >= 2


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "geometry",
    [
        ([2, 3], [2, 1], [0, 2], [1, 2]),
        ([3, 2], [1, 2], [2, 0], [2, 1]),
        ([4, 8], [3, 2], [5, 6], [1, 3]),
        ([3, 1], [9, 9], [1, 0], [1, 1]),
    ],
    ids=["wide", "tall", "32_taps", "far_apart"],
)
def test_height_and_width_each_have_their_own_geometry(format, geometry):
    check(operands(format, [2, 9, 12], 192, 24, geometry))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 16, 32, 128])
@pytest.mark.parametrize("n", [8, 320])
def test_ranks_and_widths(format, dtype, rank, n):
    check(operands(format, [2, 5, 7], 192, n, dtype=dtype, rank=rank, bias=rank != 16))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rank", [0, 16, 128])
@pytest.mark.parametrize("channels", [64, 192])
def test_ranks_after_channels_in_large_tiles(format, rank, channels):
    check(operands(format, [3, 13, 14], channels, 136, rank=rank, dtype=torch.bfloat16))


@pytest.mark.parametrize(("channels", "segments"), [(128, 2), (192, 3), (256, 2)])
@pytest.mark.parametrize("image", IMAGES, ids=["small", "large"])
def test_activation_scales_per_segment_of_a_pixel(channels, segments, image):
    check(operands("int8", image, channels, 72, segments=segments))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("size", [[7, 5], [17, 18]], ids=["small", "large"])
def test_gate_and_residual(format, batch, size):
    inputs = Inputs(torch.bfloat16, seed=7)
    args = operands(format, [2, *size], 64, 136, dtype=torch.bfloat16)
    gate = None if batch is None else inputs.normal(batch, 136)
    check((*args, gate, inputs.normal(2, *size, 136)), "conv2d_gate_residual")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("image", IMAGES, ids=["small", "large"])
def test_scales_of_other_pixels_are_never_touched(format, image):
    """Every output whose window misses the pixels with NaN scales is finite, though zero codes times any scale look the same."""
    args = operands(format, image, 128, 24, ([3, 3], [1, 1], [1, 1], [2, 2]))
    ascales = args[1].clone()
    pixels = image[0] * image[1] * image[2]
    ascales[:, [0, pixels - 1]] = torch.nan
    ascales[:, pixels:] = torch.nan
    args = (args[0], ascales, *args[2:])
    got, want = on_simt(args), OPS["conv2d"].reference(*args)
    assert 0 < want.isnan().sum() < want.numel() // 2
    assert torch.equal(got.isnan(), want.isnan())
    assert_close("conv2d", got.nan_to_num(), want.nan_to_num(), "float16")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("image", IMAGES, ids=["small", "large"])
def test_every_schedule_gives_the_same_bits_and_no_race(format, image):
    args = operands(format, image, 64, 16, ([1, 3], [1, 1], [0, 1], [1, 1]), torch.bfloat16, rank=16)
    want = on_simt(args)
    for seed, run_to_barrier in SCHEDULES:
        with schedule(seed, run_to_barrier, races=True):
            assert torch.equal(on_simt(args), want)


@pytest.mark.parametrize("format", FORMATS)
def test_sums_over_eleven_thousand_columns_keep_float32_precision(format):
    args = operands(format, [1, 8, 8], 1280, 64, rank=0, bias=False, out_dtype=torch.float32)
    x, weight = dequantize_act(*args[:2], format), dequantize_weight(*args[2:5], format)
    image = x.double().reshape(1, 8, 8, 1280).permute(0, 3, 1, 2)
    weight = weight.double().reshape(64, 3, 3, 1280).permute(0, 3, 1, 2)
    want = torch.nn.functional.conv2d(image, weight, padding=1).permute(0, 2, 3, 1)
    assert relative_rms(on_simt(args), want) < 1e-5


def test_images_of_sdxl_take_large_tiles_and_small_images_small_ones():
    for m, n in ((2 * 128 * 128, 320), (2 * 64 * 64, 640), (2 * 32 * 32, 1280)):
        assert str(kernels.choose_conv2d_w4a4_tile(m, n)).startswith("256x128 tiles")
        assert str(kernels.choose_conv2d_w8a8_tile(m, n)).startswith("128x128 tiles")
    for choose in (kernels.choose_conv2d_w4a4_tile, kernels.choose_conv2d_w8a8_tile):
        assert str(choose(2 * 16 * 16, 1280)).startswith("64x64 tiles")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (lambda: operands("nvfp4", [1, 2, 2], 64, 16), "int4 or int8 codes needed, got nvfp4"),
        (lambda: operands("int8", [1, 2, 2], 32, 16), "a multiple of 64 channels for every activation scale needed, got 32"),
        (lambda: operands("int8", [1, 2, 2], 64, 16, segments=2), "a multiple of 64 channels for every activation scale needed, got 32"),
        (lambda: operands("int4", [1, 9, 9], 64, 16, ([6, 6], [1, 1], [1, 1], [1, 1])), "a kernel of at most 32 taps needed, got 6 x 6"),
        (lambda: operands("int4", [1, 2, 2], 64, 12), "N must be a multiple of 8, got 12"),
        (lambda: operands("int4", [1, 2, 2], 64, 16, dtype=torch.float32), "one 16-bit dtype needed"),
    ],
    ids=["format", "channels", "segments", "taps", "n", "dtype"],
)
def test_what_the_kernels_cannot_take_is_refused_in_a_sentence(args, sentence):
    with pytest.raises(RuntimeError, match=sentence):
        on_simt(args())


@pytest.mark.parametrize(
    ("format", "sentence"),
    [("nvfp4", "int4 or int8 codes needed, got nvfp4"), ("int8", "tensors on a GPU needed, got them on cpu")],
)
def test_on_a_gpu_the_format_is_refused_before_the_file_is_looked_up(format, sentence, monkeypatch):
    monkeypatch.setitem(sys.modules, "halfbyte.ops.native.cuda", SimpleNamespace(kernels=kernels))
    assert cuda_rejects(KERNELS["conv2d"], *operands(format, [1, 2, 2], 64, 16)) == sentence
