"""The fused INT8 convolution, on every instruction set of this machine, against exact integers."""

import pytest
import torch
import torch.nn.functional as F

from halfbyte.env import extension
from halfbyte.ops.cpu import convolve, isas, pack
from halfbyte.testing import LIMITS, poisoned_empty, relative_rms

pytestmark = pytest.mark.skipif(extension() is None, reason="the C++ extension was not built")
ISAS = pytest.mark.parametrize("isa", isas())
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels last"])
# x [B, C, H, W], N, kernel, stride, padding, dilation: tiny images many in a block, wide ones of several bands, channels that fill
# no step or chunk, pixels that no output reads, and padding that a whole patch lies in.
GEOMETRIES = [
    ((3, 64, 8, 8), 64, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((50, 128, 2, 2), 40, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 64, 37, 5), 33, (3, 3), (2, 2), (1, 1), (1, 1)),
    ((2, 100, 9, 11), 20, (3, 3), (1, 1), (2, 2), (2, 2)),
    ((5, 3, 7, 6), 8, (1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 68, 64, 64), 8, (5, 3), (2, 1), (0, 1), (1, 2)),
    ((7, 8, 1, 1), 8, (3, 3), (1, 1), (3, 4), (1, 1)),
    ((1, 256, 40, 32), 96, (1, 1), (1, 3), (0, 0), (1, 1)),
]


def operands(size, n, kernel, dtype, layout=torch.contiguous_format):
    channels = size[1]
    x = torch.randn(size).to(dtype).to(memory_format=layout)
    qweight = torch.randint(-127, 128, (n, kernel[0] * kernel[1] * channels), dtype=torch.int8)
    return x, torch.rand(channels) + 0.5, torch.randn(n).to(dtype), qweight, torch.rand(n) * 0.01 + 0.001


def codes_of(x, smooth):
    """int64 codes [B, C, H, W] and float32 scales [B]."""
    inverse = torch.ones(x.shape[1]) if smooth is None else 1 / smooth
    scales = (x.float() * inverse[:, None, None]).abs().amax((1, 2, 3)) / 127
    scales = scales.where(scales != 0, 1).clamp_max(torch.finfo(torch.float32).max / 128)
    codes = x.float() * (inverse / scales[:, None])[:, :, None, None]
    return codes.clamp(-127, 127).nan_to_num(0).round().long(), scales


def exact(x, smooth, bias, qweight, wscales, kernel, *geometry):
    """float64 but for the codes."""
    codes, scales = codes_of(x, smooth)
    # Sums below 2^53 are exact in float64.
    weight = qweight.double().unflatten(1, (*kernel, x.shape[1])).permute(0, 3, 1, 2)
    y = F.conv2d(codes.double(), weight, None, *geometry)
    y = y * wscales.double()[:, None, None] * scales.double()[:, None, None, None]
    return y if bias is None else y + bias.double()[:, None, None]


def run(isa, x, smooth, bias, qweight, wscales, *geometry):
    with poisoned_empty():
        return convolve(pack(qweight, wscales, None, None, x.dtype, isa), x, smooth, bias, *map(list, geometry))


@ISAS
@DTYPES
@LAYOUTS
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution(isa, geometry, layout, dtype):
    size, n, *rest = geometry
    x, smooth, bias, *weight = operands(size, n, rest[0], dtype, layout)
    limit = LIMITS["float32" if dtype == torch.float32 else "bfloat16"].agreement
    for options in ((smooth, bias), (None, None)):
        y = run(isa, x, *options, *weight, *rest)
        assert relative_rms(y, exact(x, *options, *weight, *rest)) < limit
        assert y.is_contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else layout)


@ISAS
@DTYPES
@pytest.mark.parametrize("size", [(9, 64, 8, 8), (1, 64, 50, 31)], ids=str)
def test_bits_do_not_depend_on_threads_layout_or_the_other_images(isa, size, dtype):
    geometry = ((3, 3), (1, 1), (1, 1), (1, 1))
    x, *rest = operands(size, 72, geometry[0], dtype)
    before, want = torch.get_num_threads(), run(isa, x, *rest, *geometry)
    try:
        for threads in (1, 2, 3, 5, 8):
            torch.set_num_threads(threads)
            for layout in (torch.contiguous_format, torch.channels_last):
                assert torch.equal(run(isa, x.to(memory_format=layout), *rest, *geometry), want)
            assert torch.equal(torch.cat([run(isa, images, *rest, *geometry) for images in x.split(2)]), want)
    finally:
        torch.set_num_threads(before)


@ISAS
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_neither_saturate_nor_overflow(isa, sign):
    x, qweight = torch.full((2, 2048, 3, 3), 127.0), torch.full((8, 9 * 2048), 127 * sign, dtype=torch.int8)
    y = run(isa, x, None, None, qweight, torch.ones(8), (3, 3), (1, 1), (0, 0), (1, 1))
    assert torch.equal(y, torch.full((2, 8, 1, 1), float(sign * 127 * 127 * 9 * 2048)))


@ISAS
@LAYOUTS
@pytest.mark.parametrize("size", [(4, 16, 4, 4), (4, 16, 70, 70)], ids=str)
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf"), 3e38, 1e-40], ids=str)
def test_an_extreme_image_leaves_the_others_alone(isa, value, size, layout):
    geometry = ((3, 3), (1, 1), (1, 1), (1, 1))
    x, _, *rest = operands(size, 24, geometry[0], torch.float32, layout)
    x[1] = value
    if value:
        x[2, 3, 1, 2] = value
    got, want = run(isa, x, None, *rest, *geometry), exact(x, None, *rest, *geometry).float()
    assert torch.equal(got.isnan(), want.isnan())
    for one, other in zip(got, want, strict=True):
        assert relative_rms(one.nan_to_num(0), other.nan_to_num(0)) < LIMITS["float32"].agreement


@ISAS
@LAYOUTS
def test_nothing_outside_the_operands_is_read_or_written(isa, layout):
    geometry = ((3, 3), (1, 1), (1, 1), (1, 1))
    x, *rest = operands((3, 68, 5, 7), 20, geometry[0], torch.bfloat16, layout)
    want = run(isa, x, *rest, *geometry)

    def inside(tensor):
        buffer = torch.full((tensor.numel() + 2 * 512,), 127 if tensor.dtype == torch.int8 else float("nan")).to(tensor.dtype)
        return buffer[512:-512].as_strided(tensor.shape, tensor.stride(), 512).copy_(tensor)

    assert torch.equal(run(isa, *map(inside, (x, *rest)), *geometry), want)
    assert run(isa, x[:0], *rest, *geometry).shape == (0, 20, 5, 7)


@DTYPES
@LAYOUTS
def test_compiled_code_reaches_it_through_the_dispatcher(dtype, layout):
    geometry = ([3, 3], [1, 1], [1, 1], [1, 1])
    x, smooth, bias, *weight = operands((2, 16, 5, 6), 8, geometry[0], dtype, layout)
    packed = pack(*weight, None, None, dtype)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    args = (x, packed.data, smooth, bias, packed.n, dtype == torch.bfloat16, packed.isa, *geometry)
    torch.library.opcheck(torch.ops.halfbyte.packed_convolution.default, args, test_utils=checks)
    compiled = torch.compile(convolve, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(packed, x, smooth, bias, *geometry), convolve(packed, x, smooth, bias, *geometry))
