"""The warpgroup product of sm_90 as nvcc compiles it: copies, barriers, products and epilogues in the PTX interpreter."""

import contextlib
import importlib.util
import re
import shutil

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.ops.native.fused import with_act, with_act_quantize, with_gate_residual
from halfbyte.ops.native.gemm import Epilogue
from halfbyte.ops.native.gemm_w8a8 import WARPGROUPS_FILE, on_warpgroups
from halfbyte.testing import Inputs, Shape, assert_close, format_name, outputs_as_floats, poisoned_empty
from halfbyte.testing.kernel_calls import OpCall
from halfbyte.testing.kernel_calls.gemm import next_layer_calls, product
from halfbyte.testing.products import operands
from halfbyte.testing.ptx import PtxFault
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
    f"{OP}_act_quantize": with_act_quantize(on_warpgroups, 8),
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
    want = outputs_as_floats(op, args, OPS[op].reference(*args))
    for name, (tensor, format) in outputs_as_floats(op, args, got).items():
        assert_close(f"{op}, {name}", tensor, want[name][0], format)


@contextlib.contextmanager
def apart(kernels):
    """The host shim as if these kernels were not there."""
    kernels._simt.set_recorder(None)
    try:
        yield
    finally:
        kernels._simt.set_recorder(kernels.run)


def on_the_shim(kernels, op, args):
    """What the kernel of warps gives."""
    with apart(kernels), use_backend("simt"):
        return OPS[op](*args)


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
        ("int8", BFLOAT, MIDDLE_TILES, 128, 32, BFLOAT),
        ("int8", HALF, NARROW_TILES, 144, 0, HALF),
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
@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "16 bits"])
def test_activations_and_gated_linear_units(kernels, format, activation, glu, sizes, rounded):
    m, n = sizes[0], sizes[1] // 16 * 16
    dtype = HALF if format == "int8" else BFLOAT
    args = product(OP, dtype, m, n, 144, 16, dtype if rounded else FLOAT, format=format)
    check(kernels, f"{OP}_act", (*args, activation, glu))


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


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("format", "sizes", "k", "segments"),
    [("int8", NARROW, 256, 2), ("int8", MIDDLE_TILES, 384, 3), ("int8", NARROW_TILES, 1280, 5), ("fp8", MIDDLE, 1280, 5),
     ("fp8", NARROW, 2048, 2), ("fp8", NARROW_TILES, 384, 3)],
)  # fmt: skip
def test_segments(kernels, format, sizes, k, segments, dtype):
    """Of one box and of several, shorter than what E4M3 sums may hold, and longer."""
    check(kernels, OP, product(OP, dtype, *sizes, k, 16, FLOAT, format=format, segments=segments))


@pytest.mark.parametrize("sizes", [NARROW_TILES, MIDDLE_TILES], ids=["narrow", "middle"])
def test_segments_of_integers_are_exact(kernels, sizes):
    args = product(OP, BFLOAT, *sizes, 1536, 0, FLOAT, segments=6, bias=False)
    assert torch.equal(on_warpgroups(kernels, *args), on_the_shim(kernels, OP, args))


def quantizing_calls():
    return [call for call in next_layer_calls(OP) if isinstance(call, OpCall)]


@pytest.mark.parametrize("call", quantizing_calls(), ids=lambda call: call.name)
def test_outputs_quantized_for_the_next_layer(kernels, call):
    with poisoned_empty():
        got = RUNS[call.op](kernels, *call.poisoned_args)
    assert call.reason_against(got) is None


@pytest.mark.parametrize(
    ("m", "segments", "next_format", "next_segments"),
    [(300, 1, "int8", 2), (40, 1, "int8", 4), (300, 2, "int8", 4), (300, 1, "fp8", 8), (40, 2, "fp8", 4), (300, 1, "int4", 1),
     (40, 1, "nvfp4", 1)],
)  # fmt: skip
def test_codes_are_those_of_the_warps_kernel(kernels, m, segments, next_format, next_segments):
    """Bit for bit: the same float32 sums are rounded to 16 bits, and quantized by the same code."""
    n, dtype = 512, BFLOAT if m > 40 else HALF
    inputs = Inputs(dtype, seed=m)
    args = product(OP, dtype, m, n, 256, 0, dtype, segments=segments, bias=False)
    after = "none", "none", inputs.positive(n), inputs.normal(n, 36, scale=0.1), next_format, 0.0, False, next_segments
    with poisoned_empty():
        got = RUNS[f"{OP}_act_quantize"](kernels, *args, *after)
    want = on_the_shim(kernels, f"{OP}_act_quantize", (*args, *after))
    assert torch.equal(got[0].view(torch.uint8), want[0].view(torch.uint8))
    assert torch.equal(got[1].view(torch.uint8), want[1].view(torch.uint8))
    assert_close("low_rank_act", got[2], want[2], format_name(dtype))


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_values_and_gates_are_quantized(kernels, format, segments):
    m, columns, inputs = 300, 320, Inputs(BFLOAT, seed=5)
    args = product(OP, BFLOAT, m, 2 * columns, 256, 16, BFLOAT, format=format, segments=segments)
    quantize_args = inputs.positive(columns), inputs.normal(columns, 36, scale=0.1), "int8", 0.0, False, columns // 64
    check(kernels, f"{OP}_act_quantize", (*args, "silu", "gate_first", *quantize_args))


OUTPUTS = {
    "16 bits": (HALF, Epilogue()),
    "float32": (FLOAT, Epilogue()),
    "gated": (HALF, Epilogue("silu", "value_first")),
    "residual": (HALF, Epilogue(residual=Inputs(HALF).normal(300, 208))),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_beside_others(kernels, name):
    """Rows that stand apart: what lies between them stays."""
    out_dtype, epilogue = OUTPUTS[name]
    args = product(OP, HALF, 300, 208, 144, 16, out_dtype)
    want, width = on_warpgroups(kernels, *args, epilogue=epilogue), epilogue.width(208)
    whole = torch.full((300, 24 + width + 8), 7.0, dtype=out_dtype)
    on_warpgroups(kernels, *args, epilogue=epilogue, out=whole[:, 24 : 24 + width])
    assert torch.equal(whole[:, 24 : 24 + width], want)
    assert (whole[:, :24] == 7).all() and (whole[:, 24 + width :] == 7).all()


WAIT, FENCE = "cp.async.bulk.wait_group.read 0;", "fence.proxy.async.shared::cta;"
LEFT_OUT = {
    FENCE: r"a bulk copy of shared memory that thread \d+ wrote without a fence\.proxy\.async after it",
    WAIT: r"shared memory that wgmma or a bulk copy reads|returned during this bulk copy: nobody waited for its group",
}


@pytest.mark.parametrize("instruction", LEFT_OUT, ids=["fence", "wait"])
def test_boxes_that_leave_are_waited_for(kernels, instruction):
    """Each fence and each wait is needed: before the rows that follow, the tile that follows, and the end."""
    args = product(OP, BFLOAT, 520, 160, 128, 0, BFLOAT)

    def run(on):
        on_warpgroups(on, *args)
        on_warpgroups(on, *args, epilogue=Epilogue("none", "value_first"))

    with apart(kernels):
        with run_on_ptx("90a") as whole:
            run(whole)
        text, (entry,) = whole.file(WARPGROUPS_FILE).text, whole.launched[WARPGROUPS_FILE]
        begin = text.index(f".entry {entry}(")
        places = [at.start() for at in re.compile(re.escape(instruction)).finditer(text, begin, text.find(".entry ", begin + 1))]
        assert len(places) > 1
        for place in places:
            with run_on_ptx("90a") as faulty, pytest.raises(PtxFault, match=LEFT_OUT[instruction]):
                faulty.file(WARPGROUPS_FILE).text = text[:place] + text[place + len(instruction) :]
                run(faulty)


@pytest.mark.parametrize(
    ("format", "sizes", "k", "seed"),
    [("int8", WIDE, 768, 1), ("fp8", MIDDLE, 896, 2), ("int8", NARROW_TILES, 144, 3), ("int8", MIDDLE_TILES, 144, 4)],
)
def test_warps_and_blocks_may_run_ahead(kernels, format, sizes, k, seed):
    args = product(OP, BFLOAT, *sizes, k, 40, BFLOAT, format=format)
    want = on_warpgroups(kernels, *args)
    with apart(kernels), run_on_ptx("90a", seed=seed) as shuffled:
        got = on_warpgroups(shuffled, *args)
    assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 32])
def test_results_are_those_of_the_warps_kernel(kernels, dtype, rank):
    """Bit for bit without ranks: the sums are exact and scaled in one order."""
    args = product(OP, dtype, 260, 136, 192, rank, dtype)
    on_groups, on_warps = on_warpgroups(kernels, *args), on_the_shim(kernels, OP, args)
    assert rank or torch.equal(on_groups, on_warps)
    assert_close("warpgroups and warps", on_groups, on_warps, format_name(dtype))


def test_every_kernel_of_the_file_runs(kernels):
    for dtype in (HALF, BFLOAT):
        for format, sizes in (("int8", NARROW), ("int8", MIDDLE), ("int8", WIDE), ("fp8", NARROW), ("fp8", MIDDLE)):
            check(kernels, OP, product(OP, dtype, *sizes, 48, 0, dtype, format=format))
        for sizes in (NARROW, MIDDLE):
            check(kernels, OP, product(OP, dtype, *sizes, 256, 0, dtype, segments=2))
        for format, (m, n) in (("int8", (7, 64)), ("int8", (260, 256)), ("fp8", (7, 64))):
            args = product(OP, dtype, m, n, 48, 0, dtype, format=format)
            check(kernels, f"{OP}_act_quantize", (*args, "none", "none", None, None, "int4"))
    assert kernels.launched[WARPGROUPS_FILE] == kernels.entries_of(WARPGROUPS_FILE)
