"""The ops of the "cpu" backend: bits of the reference where only integers and single roundings are in play."""

import pytest
import torch

from halfbyte import ops
from halfbyte.env import extension
from halfbyte.formats import int8
from halfbyte.ops.cpu import isas
from halfbyte.testing import LIMITS, relative_rms

pytestmark = pytest.mark.skipif(extension() is None, reason="the C++ extension was not built")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.fixture(params=isas(), autouse=True)
def isa(request, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CPU_ISA", request.param)
    return request.param


def same_bits(got, want):
    equal = torch.equal(got.nan_to_num(99), want.nan_to_num(99)) and torch.equal(got.isnan(), want.isnan())
    return equal and got.dtype == want.dtype


@DTYPES
@pytest.mark.parametrize("smoothed", [False, True], ids=["plain", "smoothed"])
@pytest.mark.parametrize("size", [(1, 1), (7, 72), (63, 100), (5, 3072)], ids=str)
def test_quantize_act(size, smoothed, dtype):
    rows, columns = size
    x = (torch.randn(size) * torch.logspace(-30, 30, rows)[:, None]).to(dtype)
    smooth = torch.rand(columns).to(dtype) + 0.1 if smoothed else None
    for shift in (0.0, 0.171875):
        with ops.use_backend("reference"):
            want = ops.quantize_act(x, smooth, None, "int8", shift)
        with ops.use_backend("cpu"):
            got = ops.quantize_act(x, smooth, None, "int8", shift)
        assert all(map(same_bits, got, want))


@DTYPES
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf"), 3e38, 1e-40, -0.0], ids=str)
def test_quantize_act_of_extreme_rows(value, dtype):
    x = torch.randn(3, 40).to(dtype)
    x[1] = value
    x[2, 7] = value
    with ops.use_backend("reference"):
        want = ops.quantize_act(x, None, None, "int8")
    with ops.use_backend("cpu"):
        got = ops.quantize_act(x, None, None, "int8")
    assert all(map(same_bits, got, want))


def test_quantize_act_rounds_ties_to_even():
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5]])
    with ops.use_backend("cpu"):
        codes, scales, _ = ops.quantize_act(x, None, None, "int8")
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, 126, -126]] and scales[0, 0] == 1


@DTYPES
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("size", [(1, 8, 16), (7, 72, 100), (63, 40, 192), (200, 88, 64)], ids=str)
def test_gemm_w8a8(size, rank, dtype):
    m, n, k = size
    codes, scales = int8.quantize(torch.randn(n, k))
    for bias in (None, torch.randn(n).to(dtype)):
        qx, ascales, _ = ops.quantize_act(torch.randn(m, k).to(dtype), None, None, "int8")
        low_rank = torch.randn(m, rank).to(dtype), torch.randn(n, rank).to(dtype)
        call = (qx, ascales, codes, scales.squeeze(-1), *low_rank, bias, dtype)
        with ops.use_backend("reference"):
            want = ops.gemm_w8a8(*call)
        with ops.use_backend("cpu"):
            got = ops.gemm_w8a8(*call)
        assert got.dtype == dtype
        assert relative_rms(got, want) < LIMITS["float32" if dtype == torch.float32 else "bfloat16"].agreement


def test_refusals_name_what_the_backend_needs():
    with ops.use_backend("cpu"), pytest.raises(ops.NoBackendError, match="cpu: int8 with 1 segment needed, got int4 with 1"):
        ops.quantize_act(torch.randn(3, 64), None, None, "int4")
    with ops.use_backend("cpu"), pytest.raises(ops.NoBackendError, match="cpu: x must be float32 or bfloat16, got torch.float16"):
        ops.quantize_act(torch.randn(3, 64).half(), None, None, "int8")
