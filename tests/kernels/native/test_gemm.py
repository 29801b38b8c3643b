"""The tiled products' own source on the host shim: real layers with K whole, odd sizes and ranks, and every schedule alike."""

import pytest
import torch

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.ops.native.gemm import Epilogue, Product
from halfbyte.testing import LAYER_SHAPES, Inputs, Shape, calls_of, relative_rms, two_tiles
from halfbyte.testing.products import check, check_schedules, operands

kernels = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
HALVES = (torch.float16, torch.bfloat16)
PRODUCTS = ("gemm_w4a4", "gemm_w8a8")


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("index", "shape"), enumerate(LAYER_SHAPES), ids=[shape.name for shape in LAYER_SHAPES])
def test_real_layers_with_k_whole(name, index, shape):
    check(name, operands(name, two_tiles(shape, 256, 128), HALVES[index % 2]))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 16, 32, 128])
@pytest.mark.parametrize("m", [1, 77, 129])
@pytest.mark.parametrize("n", [8, 320])
def test_odd_sizes_and_ranks(name, dtype, rank, m, n):
    check(name, operands(name, Shape("odd", m, n, 192), dtype, rank, bias=rank != 16))


@pytest.mark.parametrize("segments", [2, 3, 6])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_activation_scales_per_segment(segments, format):
    check("gemm_w8a8", operands("gemm_w8a8", Shape("segments", 137, 136, 384), torch.bfloat16, segments=segments, format=format))


EPILOGUES = {
    "none": Epilogue(),
    "gated": Epilogue("silu", "value_first"),
    "residual": Epilogue(residual=Inputs(torch.float16).normal(140, 144)),
}


def product_w8a8(out_dtype):
    qx, ascales, qweight, wscales, *rest = operands("gemm_w8a8", Shape("beside", 140, 144, 64), torch.float16, out_dtype=out_dtype)
    return Product(qx, ascales, qweight, wscales, None, *rest)


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("out_dtype", [torch.float16, torch.float32])
def test_outputs_beside_others(name, out_dtype):
    """Rows that stand apart: what lies between them stays."""
    product, epilogue = product_w8a8(out_dtype), EPILOGUES[name]
    want, width = product.run(kernels, "gemm_w8a8", False, epilogue=epilogue), epilogue.width(144)
    whole = torch.full((140, 8 + width + 16), 7.0, dtype=out_dtype)
    out = whole[:, 8 : 8 + width]
    assert product.run(kernels, "gemm_w8a8", False, epilogue=epilogue, out=out) is out
    assert torch.equal(out, want)
    assert (whole[:, :8] == 7).all() and (whole[:, 8 + width :] == 7).all()


@pytest.mark.parametrize(
    "out",
    [torch.empty(140, 136), torch.empty(140, 144, dtype=torch.float16), torch.empty(144, 140).t()],
    ids=["narrow", "of another dtype", "transposed"],
)
def test_outputs_that_do_not_fit_are_refused(out):
    with pytest.raises(ValueError, match=r"out: torch\.float32 \[140, 144\] with dense rows needed, got"):
        product_w8a8(torch.float32).run(kernels, "gemm_w8a8", False, out=out)


def test_a_row_of_codes_that_ends_inside_a_step():
    check("gemm_w8a8", operands("gemm_w8a8", Shape("tail", 70, 72, 208), torch.float16))


@pytest.mark.parametrize("m", [100, 270])
def test_unsigned_activations(m):
    inputs = Inputs(torch.bfloat16)
    qx, ascales = inputs.act(m, 320, "int4", unsigned=True)
    check("gemm_w4a4", (qx, ascales, *inputs.weight(136, 320, "int4"), *inputs.companions(m, 136, 32, True), True, torch.bfloat16))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("glu", ["none", "value_first", "gate_first"])
@pytest.mark.parametrize("activation", ["none", "gelu_erf", "gelu_tanh", "silu"])
@pytest.mark.parametrize("shape", [Shape("large", 300, 272, 128), Shape("small", 77, 80, 128)], ids=lambda shape: shape.name)
def test_activations_and_gated_linear_units(name, glu, activation, shape):
    check(f"{name}_act", operands(name, shape, torch.float16), activation, glu)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("shape", [Shape("large", 300, 136, 128), Shape("small", 66, 72, 128)], ids=lambda shape: shape.name)
def test_gate_and_residual(name, batch, shape):
    inputs = Inputs(torch.bfloat16, seed=7)
    gate = None if batch is None else inputs.normal(batch, shape.n)
    check(f"{name}_gate_residual", operands(name, shape, torch.bfloat16), gate, inputs.normal(shape.m, shape.n))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("m", [77, 129], ids=["small_tile", "large_tile"])
def test_every_schedule_gives_the_same_bits_and_no_race(name, m):
    check_schedules(name, operands(name, Shape("schedules", m, 136, 320), torch.bfloat16))


def test_segments_in_every_schedule():
    check_schedules("gemm_w8a8", operands("gemm_w8a8", Shape("schedules", 129, 136, 384), torch.bfloat16, segments=3))


def exact_w4a4(qx, ascales, qweight, wscales):
    """Integer sums of every group, scaled and added in float64; and the same with the running sum rounded to half precision."""
    from halfbyte.formats import unpack_nibbles

    m, n, groups = qx.shape[0], qweight.shape[0], ascales.shape[0]
    exact, halved = torch.zeros(m, n, dtype=torch.float64), torch.zeros(m, n, dtype=torch.float16)
    for group in range(groups):
        part = slice(32 * group, 32 * group + 32)
        sums = unpack_nibbles(qx[:, part], signed=True).double() @ unpack_nibbles(qweight[:, part], signed=True).double().t()
        scaled = sums * ascales[group, :m].double().unsqueeze(1) * wscales[group].double()
        exact += scaled
        halved = (halved.double() + scaled).half()
    return exact, halved


def test_sums_over_twelve_thousand_columns_keep_float32_precision():
    """K = 12288 without a low-rank branch, against exact integers and float64; half-precision sums are 100 times as far off."""
    args = operands("gemm_w4a4", Shape("precision", 130, 136, 12288), torch.float16, 0, bias=False, out_dtype=torch.float32)
    with use_backend("simt"):
        got = OPS["gemm_w4a4"](*args)
    exact, halved = exact_w4a4(*args[:4])
    error, half_error = relative_rms(got, exact), relative_rms(halved, exact)
    assert error < 1e-5 < 1e-4 < half_error


def test_eight_bit_sums_are_exact_until_the_scales():
    args = operands("gemm_w8a8", Shape("precision", 130, 136, 12288), torch.float16, 0, bias=False, out_dtype=torch.float32)
    with use_backend("simt"):
        got = OPS["gemm_w8a8"](*args)
    qx, ascales, qweight, wscales = args[:4]
    sums = (qx.double() @ qweight.double().t()).float()
    assert torch.equal(got, sums * ascales[0, :130].unsqueeze(1) * wscales)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda args: (*args[:4], args[4].bfloat16(), *args[5:]), "one 16-bit dtype needed, got low_rank_act bfloat16, proj_up float16"),
        (lambda args: (*args[:4], args[4][:, :12], args[5][:, :12], *args[6:]), "the rank must be a multiple of 8, got 12"),
    ],
    ids=["mixed_dtypes", "rank"],
)
def test_what_a_kernel_cannot_take_is_refused_in_a_sentence(change, sentence):
    args = change(operands("gemm_w4a4", Shape("refused", 5, 16, 64), torch.float16))
    with use_backend("simt"), pytest.raises(RuntimeError, match=sentence):
        OPS["gemm_w4a4"](*args)


def test_parts_of_a_folded_weight_begin_at_whole_vectors_of_the_output():
    args = list(calls_of("gemm_w4a8", Shape("two parts", 5, 24, 64), torch.bfloat16)["int4-int8"])
    args[9] = 12
    with use_backend("simt"), pytest.raises(NoBackendError, match="parts of a multiple of 8 output channels needed, got 12"):
        OPS["gemm_w4a8"](*args)
