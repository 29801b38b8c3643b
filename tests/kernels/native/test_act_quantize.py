"""The next layer's activations, quantized in the epilogue of a product, against the composition of references."""

import pytest
import torch

from halfbyte.ops import OPS, use_backend
from halfbyte.testing import SCHEDULES, Inputs, Shape, assert_close, outputs_as_floats, schedule

kernels = pytest.importorskip("halfbyte._simt", reason="the host shim is built with HALFBYTE_SIMT=1")
PRODUCTS = {"gemm_w4a4": "int4", "gemm_w8a8": "int8", "gemm_nvfp4": "nvfp4"}


def operands(name, shape, dtype=torch.bfloat16, seed=0):
    inputs = Inputs(dtype, seed=seed)
    flags = (False,) if name == "gemm_w4a4" else ()
    format = PRODUCTS[name]
    weight = inputs.weight(shape.n, shape.k, format)
    return (*inputs.act(shape.m, shape.k, format), *weight, *inputs.companions(shape.m, shape.n, 32, True), *flags, dtype)


def quantization(format, columns, rank=32, segments=1, dtype=torch.bfloat16, **options):
    inputs = Inputs(dtype, seed=3)
    proj_down = inputs.normal(columns, rank, scale=columns**-0.5) if rank else None
    unsigned, shift = options.get("unsigned", False), options.get("shift", 0.0)
    return (inputs.positive(columns), proj_down, format, shift, unsigned, segments, options.get("four_over_six", False))


def check(name, args):
    with use_backend("simt"):
        got = OPS[name](*args)
    want = outputs_as_floats(name, args, OPS[name].reference(*args))
    for output, (tensor, format) in outputs_as_floats(name, args, got).items():
        assert_close(f"{name} {output}", tensor, want[output][0], format)


FORMATS = {
    "int4": {"format": "int4"},
    "int4-after-gelu": {"format": "int4", "unsigned": True, "shift": 0.171875},
    "nvfp4": {"format": "nvfp4"},
    "nvfp4-four-over-six": {"format": "nvfp4", "four_over_six": True},
    "int8": {"format": "int8", "segments": 4},
    "fp8": {"format": "fp8", "segments": 4},
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("glu", ["none", "gate_first"])
@pytest.mark.parametrize("m", [1, 77, 270])
@pytest.mark.parametrize("format", FORMATS)
def test_formats_sizes_and_gated_linear_units(name, glu, m, format):
    n = 256 if glu == "none" else 512
    args = operands(name, Shape("next", m, n, 128))
    check(f"{name}_act_quantize", (*args, "gelu_tanh", glu, *quantization(columns=256, **FORMATS[format])))


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_segments_of_256_columns(format):
    args = operands("gemm_w8a8", Shape("next", 140, 1024, 128), torch.float16)
    check("gemm_w8a8_act_quantize", (*args, "gelu_erf", "none", *quantization(format, 1024, segments=4, dtype=torch.float16)))


@pytest.mark.parametrize("rank", [0, 4, 32, 128])
@pytest.mark.parametrize("name", PRODUCTS)
def test_ranks_of_the_next_layer(name, rank):
    args = operands(name, Shape("next", 140, 320, 64))
    check(f"{name}_act_quantize", (*args, "silu", "none", *quantization("int4", 320, rank)))


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_last_columns_end_inside_a_tile(name):
    args = operands(name, Shape("next", 70, 192, 64))
    check(f"{name}_act_quantize", (*args, "none", "none", *quantization("int4", 192)))


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_schedule_gives_the_same_bits_and_no_race(name):
    args = (*operands(name, Shape("next", 140, 320, 128)), "gelu_tanh", "none", *quantization("int4", 320))
    with use_backend("simt"):
        want = OPS[f"{name}_act_quantize"](*args)
        for seed, run_to_barrier in SCHEDULES:
            with schedule(seed, run_to_barrier, races=True):
                got = OPS[f"{name}_act_quantize"](*args)
            assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(got, want, strict=True))


def test_a_scale_wider_than_a_tile_is_refused():
    args = operands("gemm_w4a4", Shape("next", 5, 256, 64))
    with use_backend("simt"), pytest.raises(RuntimeError, match="a power of two and at most 128 columns wide, got 256"):
        OPS["gemm_w4a4_act_quantize"](*args, "none", "none", *quantization("int8", 256))


@pytest.mark.parametrize("m", [1, 128, 129, 4096])
def test_the_wrappers_know_the_tiles_of_the_kernels(m):
    from halfbyte.ops.native import gemm

    assert kernels.choose_gemm_w4a4_tile(m, 512, True).block_n == gemm.BLOCK_N
    assert kernels.choose_gemm_nvfp4_tile(m, 512, True).block_n == gemm.BLOCK_N
    assert kernels.choose_gemm_w8a8_tile(m, 512, False, True).block_n == gemm.W8A8_NEXT_LAYER_BLOCK_N
    assert kernels.choose_gemm_w8a8_tile(m, 512, True, True).block_n == gemm.BLOCK_N
