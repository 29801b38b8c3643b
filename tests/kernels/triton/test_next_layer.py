"""Products that quantize their output for the next layer: results, launches, and writing into columns of a wider output."""

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_map_only

from halfbyte.ops import OPS, use_backend
from halfbyte.ops.triton.one_launch import one_launch
from halfbyte.testing import Inputs, Shape, assert_close, outputs_as_floats, poisoned_empty
from halfbyte.testing.products import operands

pytest.importorskip("triton", reason="Triton is not installed")

from halfbyte.triton_kernels import gemm_w8a8
from halfbyte.triton_kernels.epilogue import Epilogue
from halfbyte.triton_kernels.gemm_tiles import GemmConfig
from halfbyte.triton_kernels.sum_partials import sum_partials
from halfbyte.triton_kernels.tuning import trying

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRODUCTS = {"gemm_w8a8": "int8", "gemm_w4a4": "int4", "gemm_nvfp4": "nvfp4"}
WIDTH = 384
# format, shift, unsigned, segments, four_over_six; whether a tile holds the columns of a scale, and whether a gated unit's does.
OPTIONS = {
    "uint4": (("int4", 0.171875, True), True, True),
    "nvfp4": (("nvfp4",), True, True),
    "four-over-six": (("nvfp4", 0.0, False, 1, True), True, True),
    "int8-128": (("int8", 0.0, False, 3), True, False),
    "fp8-64": (("fp8", -0.25, False, 6), True, True),
    "int8-32": (("int8", 0.0, False, 12), True, True),
    "fp8-16": (("fp8", 0.0, False, 24), False, False),
    "int8-96": (("int8", 0.0, False, 4), False, False),
    "int8-token": (("int8",), False, False),
}


def on_device(args):
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(DEVICE), args)


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels launched, in order."""
    names, kind = [], type(gemm_w8a8.gemm_w8a8_kernel)
    own = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda kernel, grid: names.append(kernel.fn.__name__) or own(kernel, grid))
    return names


def call(name, options, rank=0, glu="none", m=41, width=WIDTH, dtype=torch.bfloat16, activation="gelu_tanh"):
    """Arguments of `<name>_act_quantize`, whose outputs have `width` columns."""
    inputs = Inputs(dtype)
    product = operands(name, Shape("handed_over", m, width if glu == "none" else 2 * width, 64), dtype, 16, format=PRODUCTS[name])
    proj_down = inputs.normal(width, rank, scale=width**-0.5) if rank else None
    return on_device((*product, activation, glu, inputs.positive(width), proj_down, *options))


def run(name, args):
    """Unwritten elements are NaN; the same bits twice."""
    op = OPS[f"{name}_act_quantize"]
    with use_backend("triton"):
        with poisoned_empty():
            got = op(*args)
        for first, second in zip(got, op(*args), strict=True):
            assert torch.equal(first.float(), second.float())
    return got


def check(name, args):
    op = f"{name}_act_quantize"
    got = run(name, args)
    want = outputs_as_floats(op, args, OPS[op].reference(*args))
    for output, (tensor, format) in outputs_as_floats(op, args, got).items():
        assert_close(f"{op} {output}", tensor, want[output][0], format)
    return got


@pytest.mark.parametrize("glu", ["none", "gate_first"])
@pytest.mark.parametrize(
    ("name", "options"),
    [*(("gemm_w8a8", each) for each in OPTIONS), ("gemm_w4a4", "uint4"), ("gemm_nvfp4", "nvfp4"), ("gemm_w4a4", "int8-128")],
)
def test_a_scale_that_a_tile_holds_takes_one_launch(name, options, glu, launches):
    """And one more where the next layer's branch has partial sums."""
    (*given,), plain, gated = OPTIONS[options]
    fits = plain if glu == "none" else gated
    for rank in (0, 40) if options in ("uint4", "int8-128", "int8-token") else (16,):
        args = call(name, given, rank, glu)
        assert one_launch(f"{name}_act_quantize", *args) == fits
        check(name, args)
        product, *after = launches[: len(launches) // 2]  # it ran twice
        assert product == f"{name}_kernel"
        in_tile, apart = ["sum_partials_kernel"] if rank else [], ["streamed_rows_kernel" if rank else "held_rows_kernel"]
        assert after == (in_tile if fits else apart)
        launches.clear()


@pytest.mark.parametrize("m", [1, 65])
@pytest.mark.parametrize(("options", "width"), [("uint4", 320), ("nvfp4", 272), ("fp8-32", 288)])
def test_ragged_edges_in_float16(options, width, m):
    given = OPTIONS[options][0] if options in OPTIONS else ("fp8", 0.0, False, width // 32)
    args = call("gemm_w8a8", given, 128, m=m, width=width, dtype=torch.float16)
    assert one_launch("gemm_w8a8_act_quantize", *args)
    check("gemm_w8a8", args)


@pytest.mark.parametrize("rank", [0, 32])
def test_float32_activations_and_other_dtypes_take_two_launches(rank):
    for dtype, proj_dtype in ((torch.float32, torch.float32), (torch.bfloat16, torch.float16)):
        args = list(call("gemm_w4a4", ("int4",), rank, dtype=dtype))
        if rank:
            args[-2] = args[-2].to(proj_dtype)
        assert one_launch("gemm_w4a4_act_quantize", *args) == (dtype == torch.bfloat16 and not rank)
        check("gemm_w4a4", args)


@pytest.mark.parametrize("name", PRODUCTS)
def test_no_rows_give_no_rows(name):
    args = call(name, ("int4",), 32, m=0)
    with use_backend("triton"):
        codes, ascales, low_rank_act = OPS[f"{name}_act_quantize"](*args)
    assert (codes.shape, ascales.shape, low_rank_act.shape) == ((0, WIDTH // 2), (WIDTH // 64, 0), (0, 32))


@pytest.mark.parametrize("glu", ["none", "value_first"])
def test_codes_do_not_depend_on_the_tile(glu):
    """The branch's partial sums are fewer or more, so its last bits may differ."""
    for options in ("uint4", "int8-32"):
        args = call("gemm_w8a8", OPTIONS[options][0], 32, glu)
        codes, ascales, low_rank_act = check("gemm_w8a8", args)
        with trying("gemm_w8a8", gemm_w8a8.W8A8Config(64, 64, 64, 8, 4, 2)):
            small = run("gemm_w8a8", args)
        assert torch.equal(small[0], codes) and torch.equal(small[1], ascales)
        assert_close("low_rank_act", small[2], low_rank_act, "bfloat16")


def test_an_infinite_output_reaches_only_sums_that_it_belongs_to():
    """Columns beyond the last repeat it, and infinity times the zeros they meet would be NaN."""
    *product, activation, glu, smooth, proj_down, format = call("gemm_w8a8", ("int4",), 16, width=320, activation="none")
    product[6] = torch.zeros(320, dtype=torch.bfloat16, device=DEVICE)
    product[6][-1] = float("inf")
    args = (*product, activation, glu, smooth, proj_down.abs(), format)
    assert one_launch("gemm_w8a8_act_quantize", *args)
    assert torch.equal(run("gemm_w8a8", args)[2], OPS["gemm_w8a8_act_quantize"].reference(*args)[2])
    assert run("gemm_w8a8", args)[2].isinf().all()


def test_partial_sums_are_the_same_bits_in_every_run():
    partials = torch.randn(37, 5, 7, device=DEVICE)
    assert_close("sum", sum_partials(partials, torch.float32), partials.double().sum(0).float(), "float32")
    assert torch.equal(sum_partials(partials, torch.float32), sum_partials(partials.clone(), torch.float32))
    assert sum_partials(partials[:, :0], torch.bfloat16).shape == (0, 7)


def test_a_config_is_widened_within_registers_and_shared_memory():
    square = GemmConfig(128, 128, 64, 8, 8, 4)
    assert square.holding(128) is square
    assert square.holding(256) == replace(square, BLOCK_M=64, BLOCK_N=256, num_stages=3)
    small = GemmConfig(64, 64, 128, 8, 4, 4)
    assert small.holding(128) == replace(small, BLOCK_N=128, num_warps=8, num_stages=2)


@pytest.mark.parametrize("residual", [False, True])
def test_parts_written_into_a_wider_output_are_the_whole(residual):
    m, n, split = 33, 136, 80
    qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, dtype = on_device(
        operands("gemm_w8a8", Shape("parts", m, n, 64), torch.bfloat16)
    )
    epilogue = Epilogue(residual=Inputs(dtype, DEVICE).normal(m, n)) if residual else Epilogue("silu")
    whole = gemm_w8a8.gemm_w8a8(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, dtype, epilogue)
    wide = torch.full((m, n + 16), 7.0, dtype=dtype, device=DEVICE)
    for part in (slice(0, split), slice(split, n)):
        own = replace(epilogue, residual=epilogue.residual[:, part]) if residual else epilogue
        weight = qweight[part], wscales[part], low_rank_act, proj_up[part], bias[part]
        gemm_w8a8.gemm_w8a8_into(wide[:, part], qx, ascales, *weight, own)
    assert torch.equal(wide[:, :n], whole)
    assert wide[:, n:].eq(7).all()


def test_an_output_that_cannot_be_written_into_is_refused():
    *product, dtype = on_device(operands("gemm_w8a8", Shape("out", 9, 24, 64), torch.bfloat16))
    for out in (torch.empty(9, 32, dtype=dtype, device=DEVICE), torch.empty(24, 9, dtype=dtype, device=DEVICE).t()):
        with pytest.raises(ValueError, match=r"out: shape \[9, 24\] and neighbours in a row needed, got"):
            gemm_w8a8.gemm_w8a8_into(out, *product)
