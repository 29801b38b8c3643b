"""gemm_w4a16 on the CUDA kernels' source: the matrix-vector product up to eight rows, the tiled one up to 512."""

import itertools

import pytest
import torch

from halfbyte.formats import pack_nibbles, quantize_weight
from halfbyte.ops import NoBackendError, gemm_w4a16, use_backend
from halfbyte.testing import LAYER_SHAPES, SCHEDULES, Inputs, assert_close, format_name

HALF, BFLOAT = torch.float16, torch.bfloat16
FORMATS = ("int4", "nvfp4")


def call(m, n, k, rank, format, dtype=BFLOAT, smooth=False, out_dtype=None):
    inputs = Inputs(dtype)
    weight = (*inputs.weight(n, k, format), None)[:3]
    companions = inputs.companions(m, n, rank, rank > 0)
    return inputs.normal(m, k), inputs.positive(k) if smooth else None, *weight, *companions, out_dtype or dtype


def assert_agrees(run, args, **options):
    assert_close("y", run("gemm_w4a16", args, **options), gemm_w4a16.reference(*args), format_name(args[-1]))


ODD_SIZES = [
    (1, 8, 64, 0), (1, 320, 192, 32), (3, 72, 1088, 16), (8, 136, 640, 33), (9, 8, 128, 0), (77, 320, 192, 16), (129, 72, 448, 128),
]  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("m", "n", "k", "rank"), ODD_SIZES)
def test_odd_sizes(run, m, n, k, rank, format):
    for dtype, smooth in itertools.product((HALF, BFLOAT), (False, True)):
        assert_agrees(run, call(m, n, k, rank, format, dtype, smooth))


@pytest.mark.parametrize("k", [16, 48, 80, 144, 208])
@pytest.mark.parametrize("m", [2, 10])
def test_nvfp4_rows_need_no_whole_16_byte_vectors(run, m, k):
    assert_agrees(run, call(m, 24, k, 16, "nvfp4", smooth=True))


@pytest.mark.parametrize("k", sorted({shape.k for shape in LAYER_SHAPES}))
def test_layers_with_all_of_k(run, k):
    for format in FORMATS:
        assert_agrees(run, call(1, 40, k, 32, format))
        assert_agrees(run, call(137, 144, k, 32, format, HALF))


@pytest.mark.parametrize(("n", "row_tiles"), [(4232, 1), (8456, 2), (16904, 4), (33800, 8)])
def test_wider_layers_split_k_over_fewer_warps(run, simt, n, row_tiles):
    assert f"{16 * row_tiles} weight rows split over K by {8 // row_tiles}" in simt.describe_gemm_w4a16(1, n, 1)
    assert_agrees(run, call(1, n, 192, 16, "int4"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("m", [1, 5, 66])
def test_every_schedule_gives_the_same_bits_without_a_race(run, m, format):
    assert_agrees(run, call(m, 72, 320, 33, format, smooth=m == 5), schedules=SCHEDULES, races=True)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("m", [4, 70])
def test_smoothed_activations_lose_no_more_than_float32_sums_do(run, m, format):
    for dtype in (HALF, BFLOAT):
        assert_agrees(run, call(m, 64, 1536, 32, format, dtype, smooth=True, out_dtype=torch.float32))


@pytest.mark.parametrize("m", [2, 9])
def test_smoothing_may_leave_the_range_of_float16(run, m):
    x, smooth, *rest = call(m, 8, 64, 0, "int4", HALF, smooth=True, out_dtype=torch.float32)
    args = (x.clamp(-1, 1) * 60000, smooth * 1e-3, *rest)
    assert gemm_w4a16.reference(*args).abs().max() > 1e7
    assert_agrees(run, args)


def identity_product(run, qweight, wscales, wtscale, dtype, rows):
    """The weight [N, K] as the kernel decodes it, K a few rows of x at a time: 8 for the matrix-vector kernel."""
    n, k = qweight.shape[0], qweight.shape[1] * 2
    parts = []
    for x in torch.eye(k, dtype=dtype).split(rows):
        companions = torch.empty(len(x), 0, dtype=dtype), torch.empty(n, 0, dtype=dtype), None
        parts.append(run("gemm_w4a16", (x, None, qweight, wscales, wtscale, *companions, torch.float32)))
    return torch.cat(parts).t()


@pytest.mark.parametrize("rows", [8, 16])
@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=str)
def test_every_nvfp4_code_with_every_scale_is_exact(run, dtype, rows):
    qweight = pack_nibbles(torch.arange(16)).repeat(256, 1)
    wscales = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).reshape(1, 256)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    want = torch.cat([values, -values]) * wscales.float().t()
    got = identity_product(run, qweight, wscales, torch.ones(1), dtype, rows)
    # x has zeros beside its one: a NaN scale makes all of its group NaN either way.
    assert torch.equal(got.nan_to_num(1e9), want.nan_to_num(1e9))


@pytest.mark.parametrize("rows", [8, 64])
@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=str)
def test_every_int4_code_is_exact(run, dtype, rows):
    codes = torch.stack([torch.arange(64).roll(shift) % 16 - 8 for shift in range(16)])
    wscales = (torch.rand(1, 16) + 0.5).to(dtype)
    got = identity_product(run, pack_nibbles(codes), wscales, None, dtype, rows)
    assert torch.equal(got, codes * wscales.float().t())


@pytest.mark.parametrize("m", [3, 20])
def test_a_nan_spreads_as_in_the_reference(run, m):
    x, smooth, qweight, wscales, wtscale, *rest = call(m, 72, 128, 16, "int4", smooth=True)
    x, wscales = x.clone(), wscales.clone()
    x[1, 5], x[2, 7], wscales[1, 3] = torch.nan, torch.inf, torch.nan
    args = (x, smooth, qweight, wscales, wtscale, *rest)
    got, want = run("gemm_w4a16", args), gemm_w4a16.reference(*args)
    assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
    assert got.isnan()[:, 3].all() and got.isnan()[1].all() and not got.isnan()[0].all()


def test_companions_may_be_float32_beside_16_bit_activations(run):
    for m in (2, 12):
        args = list(call(m, 24, 64, 16, "int4"))
        args[5:8] = [tensor.float() for tensor in args[5:8]]
        assert_agrees(run, tuple(args))


REFUSED = {
    "at most 512 rows, got 513": call(513, 8, 64, 0, "int4"),
    "x must be float16 or bfloat16, got float32": call(1, 8, 64, 0, "int4", torch.float32, out_dtype=BFLOAT),
    "N must be a multiple of 8, got 12": call(1, 12, 64, 0, "int4"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_run_is_refused_in_a_sentence(simt, reason):
    with use_backend("simt"), pytest.raises(NoBackendError, match=reason):
        gemm_w4a16(*REFUSED[reason])


def test_the_kernel_checks_the_addresses_it_is_given(simt):
    qweight, wscales = quantize_weight(torch.randn(8, 64), "int4").values()
    x, out = torch.randn(1, 72).to(BFLOAT), torch.empty(1, 8, dtype=BFLOAT)
    none, scales = simt.Floats(0, 1), simt.Floats(wscales.data_ptr(), 1)
    arguments = simt.W4A16Arguments(qweight.data_ptr(), scales, 0, none, none, none, out.data_ptr(), 1, 1, 8, 64, 0)
    with pytest.raises(ValueError, match="x: an address aligned to 16 bytes needed, got one that is 2 beyond"):
        simt.gemm_w4a16(simt.Floats(x[:, 1:].data_ptr(), 1), none, 0, False, arguments, 0)
    with pytest.raises(ValueError, match="wtscale: a tensor needed, got none"):
        simt.gemm_w4a16(simt.Floats(x.data_ptr(), 1), none, 0, True, arguments, 0)
