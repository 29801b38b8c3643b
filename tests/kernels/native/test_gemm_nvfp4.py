"""The NVFP4 product's own source on the host shim: real layers, odd sizes, block scales and schedules."""

import pytest
import torch

from halfbyte.formats import unpack_nibbles
from halfbyte.formats.nvfp4 import e2m1_decode
from halfbyte.ops import OPS, padded_rows, use_backend
from halfbyte.testing import LAYER_SHAPES, Inputs, Shape, relative_rms, two_tiles
from halfbyte.testing.products import check, check_schedules, operands

simt = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
HALVES = (torch.float16, torch.bfloat16)
NAME = "gemm_nvfp4"
TILES = [Shape("large", 300, 272, 160), Shape("small", 77, 80, 160)]


@pytest.mark.parametrize(("index", "shape"), enumerate(LAYER_SHAPES), ids=[shape.name for shape in LAYER_SHAPES])
def test_real_layers_with_k_whole(index, shape):
    check(NAME, operands(NAME, two_tiles(shape, 256, 128), HALVES[index % 2]))


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 16, 32, 128])
@pytest.mark.parametrize("m", [1, 77, 129])
@pytest.mark.parametrize("n", [8, 320])
def test_odd_sizes_and_ranks(dtype, rank, m, n):
    check(NAME, operands(NAME, Shape("odd", m, n, 192), dtype, rank, bias=rank != 16))


@pytest.mark.parametrize("k", [32, 96, 352])
@pytest.mark.parametrize("m", [66, 130])
def test_k_that_ends_inside_an_instruction(m, k):
    check(NAME, operands(NAME, Shape("tail", m, 72, k), torch.float16, out_dtype=torch.float32))


@pytest.mark.parametrize("glu", ["none", "value_first", "gate_first"])
@pytest.mark.parametrize("activation", ["none", "gelu_erf", "gelu_tanh", "silu"])
@pytest.mark.parametrize("shape", TILES, ids=lambda shape: shape.name)
def test_activations_and_gated_linear_units(glu, activation, shape):
    check(f"{NAME}_act", operands(NAME, shape, torch.float16), activation, glu)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("shape", [Shape("large", 300, 136, 96), Shape("small", 66, 72, 96)], ids=lambda shape: shape.name)
def test_gate_and_residual(batch, shape):
    inputs = Inputs(torch.bfloat16, seed=7)
    gate = None if batch is None else inputs.normal(batch, shape.n)
    check(f"{NAME}_gate_residual", operands(NAME, shape, torch.bfloat16), gate, inputs.normal(shape.m, shape.n))


@pytest.mark.parametrize("m", [77, 129], ids=["small_tile", "large_tile"])
def test_every_schedule_gives_the_same_bits_and_no_race(m):
    check_schedules(NAME, operands(NAME, Shape("schedules", m, 136, 352), torch.bfloat16))


def scaled(codes, scales, rows):
    """codes [rows, K / 2], scales [K / 16, rows or more] -> float64 [rows, K], exact."""
    values = e2m1_decode(unpack_nibbles(codes, signed=False)).double()
    return values * scales[:, :rows].double().t().repeat_interleave(16, dim=1)


def test_sums_over_twelve_thousand_columns_keep_float32_precision():
    """K = 12288 without a low-rank branch, against exact products summed in float64."""
    m, n = 130, 136
    args = operands(NAME, Shape("precision", m, n, 12288), torch.float16, 0, bias=False, out_dtype=torch.float32)
    with use_backend("simt"):
        got = OPS[NAME](*args)
    qx, ascales, qweight, wscales, wtscale = args[:5]
    exact = scaled(qx, ascales, m) @ scaled(qweight, wscales, n).t() * wtscale.double()
    assert relative_rms(got, exact) < 1e-5


@pytest.mark.parametrize("shape", TILES, ids=lambda shape: shape.name)
def test_every_block_meets_its_own_scales(shape):
    """Any code with any scale from 2^-9 to 448: one scale in the wrong place is off by orders of magnitude."""
    generator = torch.Generator().manual_seed(3)

    def random_bytes(*size, below):
        return torch.randint(0, below, size, generator=generator, dtype=torch.int16).to(torch.uint8)

    m, n, k = shape.m, shape.n, shape.k
    qx, qweight = (random_bytes(rows, k // 2, below=256).view(torch.int8) for rows in (m, n))
    ascales, wscales = (random_bytes(k // 16, rows, below=127).view(torch.float8_e4m3fn) for rows in (padded_rows(m), n))
    wtscale = torch.tensor([0.37])
    none = torch.empty(m, 0, dtype=torch.float16), torch.empty(n, 0, dtype=torch.float16), None
    with use_backend("simt"):
        got = OPS[NAME](qx, ascales, qweight, wscales, wtscale, *none, torch.float32)
    a, b = scaled(qx, ascales, m), scaled(qweight, wscales, n)
    exact, size = a @ b.t() * wtscale.double(), a.abs() @ b.abs().t() * wtscale.double()
    assert ((got - exact).abs() <= 1e-6 * size).all()


def test_rows_of_codes_that_no_vector_fits_are_refused():
    args = operands(NAME, Shape("refused", 5, 16, 48), torch.float16)
    sentence = r"rows of codes must be a multiple of 16 bytes and not empty, got \[5, 24\]"
    with use_backend("simt"), pytest.raises(RuntimeError, match=sentence):
        OPS[NAME](*args)


@pytest.mark.parametrize(
    ("m", "quantized", "tiles"), [(128, False, "64x64"), (129, False, "256x128"), (128, True, "256x128")]
)
def test_few_rows_take_small_tiles_and_all_fit_a_block_of_sm_120(m, quantized, tiles):
    description = str(simt.choose_gemm_nvfp4_tile(m, 3072, quantized))
    assert description.startswith(f"{tiles} tiles")
    assert int(description.split(" bytes shared")[0].split()[-1]) <= 99 * 1024
