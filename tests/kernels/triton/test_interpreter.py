"""Conversions, arithmetic and products of small floats in Triton are those of torch, in the interpreter as on a GPU."""

import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language

from halfbyte.ops.triton.device import is_interpreted
from halfbyte.triton_kernels import nibbles  # noqa: F401, its package repairs the interpreter

if not (is_interpreted() or torch.cuda.is_available()):
    pytest.skip("a GPU or TRITON_INTERPRET=1 needed", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES_OF_STEPS = torch.arange(-4096, 4096).float() / 64


@triton.jit
def convert(x, y, N: tl.constexpr):
    places = tl.arange(0, N)
    tl.store(y + places, tl.load(x + places).to(y.dtype.element_ty))


@triton.jit
def combine(x, y, z, N: tl.constexpr):
    places = tl.arange(0, N)
    a, b = tl.load(x + places), tl.load(y + places)
    tl.store(z + places, tl.where(a > b, a * b, a + b))


@triton.jit
def product(x, y, z, K, N: tl.constexpr):
    rows, columns = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    total = tl.zeros((N, N), tl.float32)
    for k in range(0, K, N):
        total = tl.dot(tl.load(x + rows * K + k + columns), tl.load(y + (k + rows) * N + columns), total)
    tl.store(z + rows * N + columns, total)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_round_to_the_nearest_and_ties_to_even(dtype):
    if DEVICE == "cuda" and dtype == torch.float8_e4m3fn and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no E4M3 conversion on this GPU")
    x = torch.cat((HALVES_OF_STEPS * 1.03125, HALVES_OF_STEPS * 2.0**-8)).to(DEVICE)
    if dtype == torch.bfloat16:
        x = torch.cat((x[:8192], 1 + torch.arange(8192, device=DEVICE) * 2.0**-9))
    y = torch.empty(x.shape, dtype=dtype, device=DEVICE)
    convert[(1,)](x, y, N=x.numel())
    assert torch.equal(y.float(), x.to(dtype).float())
    back = torch.empty_like(x)
    convert[(1,)](y, back, N=x.numel())
    assert torch.equal(back, y.float())


def test_bfloat16_is_computed_with_as_a_number():
    x, y = (torch.randn(256, device=DEVICE).bfloat16() for _ in range(2))
    z = torch.empty_like(x)
    combine[(1,)](x, y, z, N=256)
    assert torch.equal(z, torch.where(x > y, x * y, x + y))


def test_a_product_of_bfloat16_in_a_loop_bounded_by_a_size():
    x, y = torch.randn(16, 48, device=DEVICE).bfloat16(), torch.randn(48, 16, device=DEVICE).bfloat16()
    z = torch.empty(16, 16, device=DEVICE)
    product[(1,)](x, y, z, 48, N=16)
    torch.testing.assert_close(z, x.float() @ y.float(), rtol=1e-5, atol=1e-5)
