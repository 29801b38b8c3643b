"""gemm_w4a16 in Triton: the matrix-vector form up to four rows, tiles beyond, both formats, and accuracy where smooth divides."""

import pytest
import torch

from halfbyte.formats import pack_nibbles
from halfbyte.ops import NoBackendError, gemm_w4a16, use_backend
from halfbyte.testing import Inputs, assert_close, format_name

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


def call(m, n, k, rank, format, dtype=BFLOAT, smooth=False, out_dtype=None):
    inputs = Inputs(dtype, DEVICE)
    weight = (*inputs.weight(n, k, format), None)[:3]
    companions = inputs.companions(m, n, rank, rank > 0)
    return inputs.normal(m, k), inputs.positive(k) if smooth else None, *weight, *companions, out_dtype or dtype


def assert_agrees(args):
    with use_backend("triton"):
        got = gemm_w4a16(*args)
    assert got.dtype == args[-1]
    assert_close("y", got, gemm_w4a16.reference(*args), format_name(args[-1]))


@pytest.mark.parametrize("format", ["int4", "nvfp4"])
@pytest.mark.parametrize(("m", "n", "k", "rank"), [(1, 8, 64, 0), (3, 40, 1088, 33), (4, 72, 192, 5), (5, 72, 192, 16), (70, 136, 128, 40)])
def test_odd_sizes(m, n, k, rank, format):
    assert_agrees(call(m, n, k, rank, format, HALF, smooth=rank > 20))


@pytest.mark.parametrize("m", [2, 10])
def test_blocks_that_end_within_a_step(m):
    assert_agrees(call(m, 24, 208, 16, "nvfp4"))


@pytest.mark.parametrize("dtype", [HALF, BFLOAT, FLOAT])
@pytest.mark.parametrize("m", [2, 17])
def test_sums_lose_nothing_of_activations_codes_and_scales(m, dtype):
    for format in ("int4", "nvfp4"):
        assert_agrees(call(m, 24, 128, 16, format, dtype, out_dtype=FLOAT))


@pytest.mark.parametrize("m", [2, 17])
def test_a_divided_activation_keeps_16_bits(m):
    for dtype in (HALF, BFLOAT):
        assert_agrees(call(m, 24, 128, 0, "int4", dtype, smooth=True, out_dtype=FLOAT))
    assert_agrees(call(m, 24, 128, 0, "int4", BFLOAT, smooth=True))


@pytest.mark.parametrize("m", [1, 8])
@pytest.mark.parametrize("dtype", [HALF, BFLOAT])
def test_every_code_and_block_scale(m, dtype):
    """x is one row of the identity matrix at a time: y is the column of the weight."""
    codes = torch.arange(16, device=DEVICE).repeat(8, 16)
    qweight = pack_nibbles(codes)
    e4m3 = torch.tensor([0x01, 0x07, 0x08, 0x38, 0x7E, 0x7F, 0x81, 0xB8], dtype=torch.uint8, device=DEVICE).view(torch.float8_e4m3fn)
    formats = {
        "int4": (torch.full((4, 8), 0.5, dtype=dtype, device=DEVICE), None),
        "nvfp4": (e4m3.repeat(16, 1), torch.tensor([0.25], device=DEVICE)),
    }
    x = torch.eye(16, 256, dtype=dtype, device=DEVICE)
    empty = torch.empty(m, 0, dtype=dtype, device=DEVICE), torch.empty(8, 0, dtype=dtype, device=DEVICE), None, FLOAT
    for wscales, wtscale in formats.values():
        for first in range(0, 16, m):
            args = (x[first : first + m], None, qweight, wscales, wtscale, *empty)
            with use_backend("triton"):
                got = gemm_w4a16(*args)
            assert torch.equal(got.nan_to_num(7e3), gemm_w4a16.reference(*args).nan_to_num(7e3))


def test_operands_that_are_views():
    x, _, *rest = call(6, 24, 128, 16, "int4")
    assert_agrees((x.t().contiguous().t(), None, *rest))
    inputs = Inputs(FLOAT, DEVICE)
    bias, act = inputs.normal(48)[::2], inputs.normal(6, 32)[:, ::2]
    assert_agrees((x, inputs.positive(256)[::2], *rest[:3], act, inputs.normal(16, 24).t(), bias, BFLOAT))


def test_a_weight_at_an_odd_address_is_refused():
    args = list(call(2, 8, 64, 0, "int4"))
    args[2] = torch.cat((args[2].flatten()[:1], args[2].flatten()))[1:].view(8, 32)
    with use_backend("triton"), pytest.raises(NoBackendError, match="qweight must begin at a multiple of 4 bytes"):
        gemm_w4a16(*args)
