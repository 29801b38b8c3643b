"""E4M3 codes in the 8-bit product's own source on the host shim."""

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.testing import LAYER_SHAPES, Shape, relative_rms, two_tiles
from halfbyte.testing.products import check, check_schedules, operands

pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
HALVES = (torch.float16, torch.bfloat16)
NAME = "gemm_w8a8"
# One layer for every K; test_gemm runs the same loops on all of them with INT8 codes.
ONE_OF_EACH_K = {shape.k: shape for shape in LAYER_SHAPES if shape.m > 1}.values()


def fp8_operands(*args, **options):
    return operands(NAME, *args, **options, format="fp8")


@pytest.mark.parametrize(("index", "shape"), enumerate(ONE_OF_EACH_K), ids=[shape.name for shape in ONE_OF_EACH_K])
def test_real_layers_with_k_whole(index, shape):
    check(NAME, fp8_operands(two_tiles(shape, 128, 64), HALVES[index % 2]))


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 16, 32, 128])
@pytest.mark.parametrize("m", [1, 77, 129])
@pytest.mark.parametrize("n", [8, 320])
def test_odd_sizes_and_ranks(dtype, rank, m, n):
    check(NAME, fp8_operands(Shape("odd", m, n, 208), dtype, rank, bias=rank != 16))


@pytest.mark.parametrize("m", [77, 129], ids=["small_tile", "large_tile"])
def test_every_schedule_gives_the_same_bits_and_no_race(m):
    check_schedules(NAME, fp8_operands(Shape("schedules", m, 136, 208), torch.bfloat16))


def test_sums_over_twelve_thousand_columns_keep_float32_precision():
    args = fp8_operands(Shape("precision", 130, 136, 12288), torch.float16, rank=0, bias=False, out_dtype=torch.float32)
    with use_backend("simt"):
        got = OPS[NAME](*args)
    qx, ascales, qweight, wscales = (tensor.double() for tensor in args[:4])
    exact = (qx @ qweight.t()) * ascales[0, :130].unsqueeze(1) * wscales
    assert relative_rms(got, exact) < 1e-5
