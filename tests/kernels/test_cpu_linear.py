"""The fused linear layer on a packed weight, on every instruction set of this machine, against exact integers."""

import pytest
import torch

from halfbyte.env import extension
from halfbyte.formats import int8
from halfbyte.ops.cpu import isas, pack
from halfbyte.testing import LIMITS, poisoned_empty, relative_rms

pytestmark = pytest.mark.skipif(extension() is None, reason="the C++ extension was not built")
ISAS = pytest.mark.parametrize("isa", isas())
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
# Full tiles and panels, one row, every remainder in small, K that is no whole chunk or step of any instruction set.
SIZES = [(1, 8, 64), (2, 72, 100), (7, 33, 4), (13, 40, 68), (100, 136, 192), (37, 8, 1152), (24, 64, 320)]


def operands(m, n, k, rank, dtype):
    qweight, wscales = torch.randint(-127, 128, (n, k), dtype=torch.int8), torch.rand(n) * 0.01 + 0.001
    down, up = ((torch.randn(k, rank) * k**-0.5).to(dtype), torch.randn(n, rank).to(dtype)) if rank else (None, None)
    return torch.randn(m, k).to(dtype), torch.rand(k) + 0.5, torch.randn(n).to(dtype), qweight, wscales, down, up


def exact(x, smooth, bias, qweight, wscales, down, up):
    """float64 but for the roundings that belong to the layer."""
    codes, scales = int8.quantize(x.float() if smooth is None else x.float() / smooth)
    y = (codes.long() @ qweight.long().t()).double() * scales.double() * wscales.double()
    if up is not None:
        y = y + (x.double() @ down.double()).to(x.dtype).double() @ up.double().t()
    return y if bias is None else y + bias.double()


def run(isa, x, smooth, bias, *weight):
    with poisoned_empty():
        return pack(*weight, x.dtype, isa).linear(x, smooth, bias)


@ISAS
@DTYPES
@pytest.mark.parametrize("rank", [0, 3, 16, 32, 128])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear(isa, size, rank, dtype):
    x, smooth, bias, *weight = operands(*size, rank, dtype)
    limit = LIMITS["float32" if dtype == torch.float32 else "bfloat16"].agreement
    for options in ((smooth, bias), (None, bias), (smooth, None)):
        assert relative_rms(run(isa, x, *options, *weight), exact(x, *options, *weight)) < limit


@ISAS
@DTYPES
def test_bits_do_not_depend_on_threads_or_on_the_other_rows(isa, dtype):
    x, smooth, bias, *weight = operands(253, 200, 448, 32, dtype)
    packed, before = pack(*weight, dtype, isa), torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 3, 5, 8):
            torch.set_num_threads(threads)
            outputs += [packed.linear(x, smooth, bias), packed.linear(x, smooth, bias)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert torch.equal(torch.cat([packed.linear(rows, smooth, bias) for rows in x.split(7)]), outputs[0])


@ISAS
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_neither_saturate_nor_overflow(isa, sign):
    k = 16_384
    x, qweight = torch.full((5, k), 127.0), torch.full((40, k), 127 * sign, dtype=torch.int8)
    x[1], qweight[3] = -127, -127 * sign
    y = run(isa, x, None, None, qweight, torch.ones(40), None, None)
    assert torch.equal(y.long(), x.long() @ qweight.long().t())


@ISAS
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf"), 3e38, 1e-40], ids=str)
def test_extreme_rows_stay_what_the_reference_makes_of_them(isa, value):
    x, smooth, bias, *weight = operands(9, 40, 64, 0, torch.float32)
    x[1], x[4, 7] = value, value
    for smoothing in (None, smooth):
        got, want = run(isa, x, smoothing, bias, *weight), exact(x, smoothing, bias, *weight).float()
        assert torch.equal(got.isnan(), want.isnan())
        assert relative_rms(got.nan_to_num(0), want.nan_to_num(0)) < LIMITS["float32"].agreement


@ISAS
def test_nothing_outside_the_operands_is_read_or_written(isa):
    x, smooth, bias, *weight = operands(11, 40, 68, 5, torch.bfloat16)
    want = run(isa, x, smooth, bias, *weight)

    def inside(tensor):
        buffer = torch.full((tensor.numel() + 2 * 512,), 127 if tensor.dtype == torch.int8 else float("nan")).to(tensor.dtype)
        return buffer[512:-512].view(tensor.shape).copy_(tensor)

    assert torch.equal(run(isa, *map(inside, (x, smooth, bias, *weight))), want)
    assert torch.equal(pack(*weight, x.dtype, isa).linear(x[:0], smooth, bias), want[:0])


def test_an_instruction_set_this_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr("halfbyte.ops.cpu.packed_weight.isas", lambda: ["generic"])
    monkeypatch.setenv("HALFBYTE_CPU_ISA", "avx2")
    with pytest.raises(ValueError, match="HALFBYTE_CPU_ISA: one of generic needed on this machine, got 'avx2'"):
        pack(torch.zeros(8, 8, dtype=torch.int8), torch.ones(8), None, None, torch.float32)


@DTYPES
def test_compiled_code_reaches_it_through_the_dispatcher(dtype):
    x, smooth, bias, *weight = operands(13, 40, 64, 4, dtype)
    packed = pack(*weight, dtype)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    args = (x, packed.data, smooth, bias, packed.n, packed.rank, dtype == torch.bfloat16, packed.isa)
    torch.library.opcheck(torch.ops.halfbyte.packed_linear.default, args, test_utils=checks)
    compiled = torch.compile(packed.linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, smooth, bias), packed.linear(x, smooth, bias))
