"""Every op on every backend present, over layer shapes and odd sizes, against its reference."""

import os

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from halfbyte.formats import quantize_weight
from halfbyte.ops import BACKENDS, OPS, NoBackendError, use_backend
from halfbyte.testing import (
    BUILDERS,
    LAYER_SHAPES,
    LIMITS,
    ODD_SHAPES,
    Shape,
    assert_close,
    calls_of,
    cropped,
    outputs_as_floats,
    poisoned_empty,
    relative_rms,
)
from halfbyte.testing.kernel_calls.call import into_poison

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Cropped, on a GPU only where the float64 comparison would not fit beside the operands.
SHAPES = cropped((*LAYER_SHAPES, *ODD_SHAPES), *((8192, 20480, 20480) if DEVICE == "cuda" else (33, 136, 192)))
SMALL = Shape("small", 5, 128, 128)
INTERPRETED = ("triton",) if os.environ.get("TRITON_INTERPRET") == "1" else ()
ON_DEVICE = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "simt", *INTERPRETED, "reference")}[DEVICE]
PRESENT = [(name, backend) for name in BUILDERS for backend in ON_DEVICE if OPS[name].missing(backend) is None]


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def as_bytes(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def test_every_op_has_example_calls():
    assert set(BUILDERS) == {name for name in OPS if not name.startswith("test_")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(("name", "backend"), PRESENT, ids=[f"{name}-{backend}" for name, backend in PRESENT])
def test_agrees_with_the_reference_and_is_deterministic(name, backend, shape, dtype):
    for id, args in calls_of(name, shape, dtype, DEVICE).items():
        with use_backend(backend):
            try:
                with poisoned_empty():
                    got = OPS[name](*tree_map_only(torch.Tensor, into_poison, args))
            except NoBackendError as error:
                assert str(error).startswith(f"no implementation of {name} accepts this call ({backend}: ")
                continue
            again = OPS[name](*args)
        for first, second in zip(as_tuple(got), as_tuple(again), strict=True):
            assert first.is_contiguous() and torch.equal(as_bytes(first), as_bytes(second)), id
        want = outputs_as_floats(name, args, OPS[name].reference(*args))
        for output, (tensor, format) in outputs_as_floats(name, args, got).items():
            assert_close(f"{name} {id} {output}", tensor, want[output][0], format)


@pytest.mark.parametrize("name", BUILDERS)
def test_opcheck(name):
    args = next(iter(calls_of(name, SMALL, torch.float32).values()))
    # opcheck's schema test multiplies the inputs, which PyTorch cannot do in float8; the test below covers what it would find.
    has_float8 = any(isinstance(arg, torch.Tensor) and arg.dtype == torch.float8_e4m3fn for arg in args)
    checks = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(OPS[name].overload, args, test_utils=checks[has_float8:])


@pytest.mark.parametrize("name", BUILDERS)
def test_an_op_leaves_its_inputs_alone_and_returns_fresh_tensors(name):
    for id, args in calls_of(name, SMALL, torch.float32).items():
        inputs = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        before = [as_bytes(tensor).clone() for tensor in inputs]
        outputs = as_tuple(OPS[name](*args))
        assert all(torch.equal(as_bytes(tensor), old) for tensor, old in zip(inputs, before, strict=True)), id
        storages = [{t.untyped_storage().data_ptr() for t in tensors if t.numel()} for tensors in (inputs, outputs)]
        assert not storages[0] & storages[1], id


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_the_fake_has_the_shapes_and_dtypes_of_every_call(name, dtype):
    for id, args in calls_of(name, Shape("odd", 3, 192, 64), dtype).items():
        on_meta = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), args)
        for fake, real in zip(as_tuple(OPS[name](*on_meta)), as_tuple(OPS[name](*args)), strict=True):
            assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride()), id


@pytest.mark.parametrize("name", BUILDERS)
def test_an_op_takes_at_most_twelve_tensors(name):
    assert sum("Tensor" in str(argument.type) for argument in OPS[name].overload._schema.arguments) <= 12


def test_a_chain_of_ops_compiles_to_one_graph():
    args = calls_of("gemm_w4a4", SMALL, torch.float32)["low-rank"]
    x, proj_down = torch.randn(5, 128), torch.randn(128, 32)

    def layer(x):
        qx, ascales, low_rank_act = OPS["quantize_act"](x, None, proj_down, "int4")
        return OPS["gemm_w4a4"](qx, ascales, *args[2:4], low_rank_act, *args[5:])

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))
    explained = torch._dynamo.explain(layer)(x)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


FUSED = [name for name in BUILDERS if name.endswith(("_act", "_act_quantize", "_gate_residual")) and name != "quantize_act"]


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_op_is_the_composition_of_its_parts(name):
    product_name = next(p for p in ("gemm_w4a4", "gemm_w8a8", "gemm_nvfp4", "conv2d") if name.startswith(p))
    product = OPS[product_name]
    count = len(product.overload._schema.arguments)
    for id, args in calls_of(name, SMALL, torch.bfloat16).items():
        y = product.reference(*args[: count - 1], torch.float32)
        got, rest = OPS[name](*args), args[count:]
        if name.endswith("gate_residual"):
            gate, residual = rest
            want = residual + (y if gate is None else gate * y)
            assert_close(f"{name} {id}", got, want.to(torch.bfloat16), "bfloat16")
            continue
        activation, glu, *quantize = rest
        function = {"gelu_erf": torch.nn.GELU(), "gelu_tanh": torch.nn.GELU("tanh"), "silu": torch.nn.SiLU()}[activation]
        half = y.shape[1] // 2
        halves = {"value_first": (y[:, :half], y[:, half:]), "gate_first": (y[:, half:], y[:, :half])}
        hidden_states = (function(y) if glu == "none" else halves[glu][0] * function(halves[glu][1])).to(torch.bfloat16)
        want = OPS["quantize_act"](hidden_states, *quantize) if quantize else (hidden_states,)
        for first, second in zip(as_tuple(got), want, strict=True):
            assert torch.equal(first.float(), second.float()), id


@pytest.mark.parametrize("format", ["int4", "nvfp4", "int8", "fp8"])
def test_a_product_of_quantized_operands_is_as_close_to_the_float_product_as_its_format_allows(format):
    x, weight = torch.randn(64, 512), torch.randn(96, 512)
    name = {"int4": "gemm_w4a4", "nvfp4": "gemm_nvfp4"}.get(format, "gemm_w8a8")
    qx, ascales, low_rank_act = OPS["quantize_act"](x, None, None, format)
    tensors = quantize_weight(weight, format, torch.float32).values()
    flags = (False,) if format == "int4" else ()
    y = OPS[name](qx, ascales, *tensors, low_rank_act, torch.empty(96, 0), None, *flags, torch.float32)
    error = relative_rms(y, x @ weight.t())
    assert LIMITS[format].rounding / 3 < error < LIMITS[format].rounding * 2**0.5


ABSENT = [(name, backend) for name in BUILDERS for backend in BACKENDS if OPS[name].missing(backend) is not None]


@pytest.mark.parametrize(("name", "backend"), ABSENT, ids=[f"{name}-{backend}" for name, backend in ABSENT])
def test_an_absent_backend_asked_for_by_name_is_refused_with_its_reason(name, backend):
    args = next(iter(calls_of(name, SMALL).values()))
    refusal = rf"no implementation of {name} accepts this call \({backend}: .+\)"
    with use_backend(backend), pytest.raises(NoBackendError, match=refusal):
        OPS[name](*args)
