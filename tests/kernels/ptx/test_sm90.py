"""The warpgroup product of sm_90 as nvcc compiles it: copies, barriers, products and epilogues in the PTX interpreter."""

import importlib.util
import shutil

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.ops.native.fused import with_act, with_gate_residual
from halfbyte.ops.native.gemm_w8a8 import WARPGROUPS_FILE, on_warpgroups
from halfbyte.testing import Inputs, Shape, assert_close, format_name, poisoned_empty
from halfbyte.testing.kernel_calls.gemm import product
from halfbyte.testing.products import operands
from halfbyte.testing.ptx.backend import run_on_ptx

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("halfbyte._simt") is None, reason="halfbyte._simt is not built (HALFBYTE_SIMT=1)"
    ),
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc"),
]
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32
OP = "gemm_w8a8"
RUNS = {
    OP: on_warpgroups,
    f"{OP}_act": with_act(on_warpgroups, 8),
    f"{OP}_gate_residual": with_gate_residual(on_warpgroups, 8),
}
# M, N that take tiles of 128, 192 and 256 columns on the shim's machine of two clusters; those called TILES take several rounds.
NARROW, NARROW_TILES, MIDDLE, MIDDLE_TILES, WIDE, WIDE_TILES = (7, 8), (40, 1000), (260, 184), (300, 568), (260, 248), (520, 400)


@pytest.fixture(scope="module")
def kernels():
    with run_on_ptx("90a") as recorded:
        yield recorded


def check(kernels, op, args):
    with poisoned_empty():
        got = RUNS[op](kernels, *args)
    want = OPS[op].reference(*args)
    assert got.dtype == want.dtype
    assert_close(op, got, want, format_name(want.dtype))


@pytest.mark.parametrize(
    ("format", "dtype", "sizes", "k", "rank", "out_dtype"),
    [
        ("int8", BFLOAT, NARROW, 16, 8, FLOAT),
        ("int8", HALF, NARROW_TILES, 272, 32, FLOAT),
        ("int8", BFLOAT, MIDDLE_TILES, 128, 32, FLOAT),
        ("int8", BFLOAT, WIDE_TILES, 272, 48, BFLOAT),
        ("int8", HALF, WIDE, 1040, 136, FLOAT),
        ("fp8", BFLOAT, NARROW_TILES, 656, 8, FLOAT),
        ("fp8", HALF, NARROW, 2048, 0, HALF),
        ("fp8", BFLOAT, MIDDLE_TILES, 528, 32, FLOAT),
        ("fp8", HALF, MIDDLE, 512, 24, FLOAT),
    ],
)
def test_products(kernels, format, dtype, sizes, k, rank, out_dtype):
    check(kernels, OP, product(OP, dtype, *sizes, k, rank, out_dtype, format=format, bias=rank > 0))


@pytest.mark.parametrize("sizes", [NARROW_TILES, MIDDLE, WIDE], ids=["narrow", "middle", "wide"])
def test_integers_are_exact_and_scaled_as_on_warps(kernels, sizes):
    m, n = sizes
    args = operands(OP, Shape("exact", m, n, 400), BFLOAT, 0, bias=False, out_dtype=FLOAT)
    qx, ascales, qweight, wscales, *rest = args
    integers = (qx.double() @ qweight.double().t()).float()
    ones = torch.ones_like(ascales), torch.ones_like(wscales)
    assert torch.equal(on_warpgroups(kernels, qx, ones[0], qweight, ones[1], *rest), integers)
    scaled = integers * ascales[0, :m, None] * wscales
    assert torch.equal(on_warpgroups(kernels, *args), scaled)


@pytest.mark.parametrize(
    ("format", "activation", "glu", "sizes"),
    [
        ("int8", "gelu_tanh", "none", NARROW_TILES),
        ("int8", "silu", "gate_first", WIDE_TILES),
        ("int8", "gelu_erf", "value_first", MIDDLE),
        ("fp8", "gelu_tanh", "value_first", MIDDLE_TILES),
        ("fp8", "none", "gate_first", NARROW_TILES),
    ],
)
def test_activations_and_gated_linear_units(kernels, format, activation, glu, sizes):
    m, n = sizes[0], sizes[1] // 16 * 16
    dtype = HALF if format == "int8" else BFLOAT
    check(kernels, f"{OP}_act", (*product(OP, dtype, m, n, 144, 16, FLOAT, format=format), activation, glu))


@pytest.mark.parametrize("activation", ["gelu_tanh", "silu"])
def test_activations_of_large_values(kernels, activation):
    """Where the exponential overflows or vanishes."""
    args = operands(OP, Shape("large", 40, 64, 64), BFLOAT, 0, bias=False, out_dtype=FLOAT)
    args = args[0], args[1] * 90, *args[2:]
    assert OPS[OP].reference(*args).abs().max() > 200
    check(kernels, f"{OP}_act", (*args, activation, "none"))


@pytest.mark.parametrize(("batch", "sizes"), [(None, NARROW_TILES), (1, WIDE_TILES), (4, WIDE), (2, MIDDLE)])
def test_gate_and_residual(kernels, batch, sizes):
    m, n = sizes
    inputs = Inputs(BFLOAT, seed=7)
    gate = None if batch is None else inputs.normal(batch, n)
    check(kernels, f"{OP}_gate_residual", (*product(OP, BFLOAT, m, n, 128, 16, BFLOAT), gate, inputs.normal(m, n)))


@pytest.mark.parametrize(
    ("format", "sizes", "k", "seed"),
    [("int8", WIDE, 768, 1), ("fp8", MIDDLE, 896, 2), ("int8", NARROW_TILES, 144, 3), ("int8", MIDDLE_TILES, 144, 4)],
)
def test_warps_and_blocks_may_run_ahead(kernels, format, sizes, k, seed):
    args = product(OP, BFLOAT, *sizes, k, 40, BFLOAT, format=format)
    want = on_warpgroups(kernels, *args)
    kernels._simt.set_recorder(None)
    with run_on_ptx("90a", seed=seed) as shuffled:
        got = on_warpgroups(shuffled, *args)
    kernels._simt.set_recorder(kernels.run)
    assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 32])
def test_results_are_those_of_the_warps_kernel(kernels, dtype, rank):
    """Bit for bit without ranks: the sums are exact and scaled in one order."""
    args = product(OP, dtype, 260, 136, 192, rank, dtype)
    on_groups = on_warpgroups(kernels, *args)
    kernels._simt.set_recorder(None)
    with use_backend("simt"):
        on_warps = OPS[OP](*args)
    kernels._simt.set_recorder(kernels.run)
    assert rank or torch.equal(on_groups, on_warps)
    assert_close("warpgroups and warps", on_groups, on_warps, format_name(dtype))


def test_every_kernel_of_the_file_runs(kernels):
    for dtype in (HALF, BFLOAT):
        for format, sizes in (("int8", NARROW), ("int8", MIDDLE), ("int8", WIDE), ("fp8", NARROW), ("fp8", MIDDLE)):
            check(kernels, OP, product(OP, dtype, *sizes, 48, 0, dtype, format=format))
    assert kernels.launched[WARPGROUPS_FILE] == kernels.entries_of(WARPGROUPS_FILE)
