import math

import pytest
import torch
from torch import nn

from halfbyte.checkpoint import (
    CheckpointError,
    LayerMap,
    TensorInfo,
    build_schema,
    check_complete,
    check_header,
    flatten,
    unflatten,
)
from halfbyte.formats import LayerFormat

FORMATS = {
    "int4-svdq": LayerFormat("int4", "int4", rank=3, smooth=True),
    "int4-after-gelu": LayerFormat("int4", "int4", rank=3, act_shift=0.171875),
    "w4a16": LayerFormat("int4", None),
    "nvfp4": LayerFormat("nvfp4", "nvfp4", rank=5, four_over_six=True),
    "int8": LayerFormat("int8", "int8", smooth=True),
    "fp8": LayerFormat("fp8", "fp8"),
}


def net(dtype=torch.bfloat16):
    torch.manual_seed(0)
    model = nn.Module()
    model.to_q, model.to_k = nn.Linear(64, 24, bias=False), nn.Linear(64, 40)
    model.conv = nn.Conv2d(64, 8, (3, 1))
    model.norm, model.odd = nn.LayerNorm(64), nn.Linear(63, 8)
    model.register_buffer("steps", torch.arange(5))
    return model.to(dtype)


def described(flat):
    return {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in flat.items()}


def mapped(model):
    return LayerMap.of(dict(model.named_parameters()))


@pytest.mark.parametrize("layer_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_schema_from_meta_is_what_flatten_writes(tools, layer_format, dtype):
    model = tools.low_bit(net(dtype), layer_format)
    layer_map, flat = mapped(model), flatten(model)
    with torch.device("meta"):
        skeleton = net(dtype)
    schema = build_schema(skeleton, layer_map)
    check_header(schema, described(flat))
    assert set(flat) == set(schema) and not any(isinstance(t, type(model.to_q.weight)) for t in flat.values())
    for layer in layer_map.formats:
        stored = sum(tensor.nbytes for name, tensor in flat.items() if schema[name].layer == layer)
        weight = model.get_submodule(layer).weight
        kernel = tuple(weight.shape[2:]) or (1, 1)
        assert stored == layer_format.stored_bytes(*weight.shape[:2], kernel, dtype, owns_down=layer not in layer_map.down_owner)


@pytest.mark.parametrize("layer_format", FORMATS.values(), ids=FORMATS)
def test_unflatten_undoes_flatten(tools, layer_format):
    model = tools.low_bit(net(), layer_format)
    restored = unflatten(flatten(model), net(), mapped(model))
    for key, tensor in model.state_dict().items():
        if hasattr(tensor, "storage") and isinstance(tensor.storage, dict):
            assert restored[key].layer_format == tensor.layer_format and restored[key].shape == tensor.shape
            assert all(torch.equal(value.float(), restored[key].storage[name].float()) for name, value in tensor.storage.items())
            assert torch.equal(restored[key].dequantize(), tensor.dequantize())
        else:
            assert torch.equal(restored[key], tensor)
    if layer_format.rank:
        assert restored["to_q.weight"].storage["proj_down"] is restored["to_k.weight"].storage["proj_down"]


def change(flat, name, value):
    return {**flat, name: value}


def without(flat, name):
    return {key: tensor for key, tensor in flat.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: without(f, "to_k.wscales"), "to_k.wscales: .*missing"),
        (lambda f: without(f, "norm.bias"), "norm.bias: .*missing"),
        (lambda f: change(f, "to_k.proj_down", f["to_q.proj_down"]), "to_k.proj_down: in the checkpoint, but"),
        (lambda f: change(f, "extra", torch.zeros(1)), "extra: in the checkpoint, but"),
        (lambda f: change(f, "to_q.qweight", f["to_q.qweight"][:, 1:]), r"to_q.qweight: shape \[24, 32\] .*\[24, 31\]"),
        (lambda f: change(f, "to_q.wscales", f["to_q.wscales"].T), r"to_q.wscales: shape \[1, 24\]"),
        (lambda f: change(f, "odd.weight", f["odd.weight"][:, 1:]), r"odd.weight: shape \[8, 63\]"),
        (lambda f: change(f, "to_q.qweight", f["to_q.qweight"].view(torch.uint8)), "to_q.qweight: int8 is needed, .*uint8"),
        (lambda f: change(f, "to_q.proj_up", f["to_q.proj_up"].half()), "to_q.proj_up: bfloat16 .* as in to_q.wscales"),
        (lambda f: change(f, "to_q.wscales", f["to_q.wscales"].double()), "to_q.wscales: bfloat16 or float16 is needed, the checkpoint has float64"),
        (lambda f: change(f, "norm.bias", f["norm.bias"].to(torch.int8)), "norm.bias: float32 or .*int8"),
        (lambda f: change(f, "steps", f["steps"].int()), "steps: int64 is needed, .*int32"),
        (lambda f: change(f, "to_k.wscales", f["to_k.wscales"] * float("nan")), "to_k.wscales: finite values > 0 .*first is nan"),
        (lambda f: change(f, "to_k.wscales", f["to_k.wscales"] * 0), "to_k.wscales: .*first is 0.0"),
        (lambda f: change(f, "to_k.wscales", -f["to_k.wscales"]), "to_k.wscales: .*first is -"),
        (lambda f: change(f, "conv.smooth_factor", f["conv.smooth_factor"] / 0), "conv.smooth_factor: .*inf"),
        (lambda f: change(f, "conv.proj_down", f["conv.proj_down"] / 0), "conv.proj_down: finite values are needed"),
        (lambda f: change(f, "to_q.proj_up", f["to_q.proj_up"] * float("nan")), "to_q.proj_up: .*nan"),
    ],
    ids=["dropped", "dropped-float", "second-down", "extra", "narrow", "transposed", "float-shape", "unsigned", "mixed-dtype",
         "double", "float-as-int", "buffer-dtype", "nan", "zero", "negative", "inf-smooth", "inf-down", "nan-up"],
)  # fmt: skip
def test_each_fault_is_one_sentence(tools, edit, message):
    model = tools.low_bit(net(), FORMATS["int4-svdq"])
    flat = flatten(model)
    with pytest.raises(CheckpointError, match=message) as error:
        unflatten(edit(flat), net(), mapped(model))
    assert "\n" not in str(error.value)


def test_nan_in_an_e4m3_scale_and_in_the_outer_scale(tools):
    model = tools.low_bit(net(), FORMATS["nvfp4"])
    flat = flatten(model)
    scales = flat["conv.wscales"].clone()
    scales.view(torch.uint8)[2, 3] = 0x7F
    with pytest.raises(CheckpointError, match="conv.wscales: .* 1 of 96 are not, the first is nan"):
        unflatten({**flat, "conv.wscales": scales}, net(), mapped(model))
    with pytest.raises(CheckpointError, match="conv.wtscale: .*inf"):
        unflatten({**flat, "conv.wtscale": torch.tensor([math.inf])}, net(), mapped(model))


@pytest.mark.parametrize(
    ("name", "layer_format", "message"),
    [
        ("odd", LayerFormat("int4", None), "odd: in_features 63 is not a multiple"),
        ("conv", LayerFormat("int4", None, rank=9), "conv: rank 9 is larger"),
    ],
)
def test_sizes_the_format_does_not_allow(name, layer_format, message):
    with pytest.raises(CheckpointError, match=message):
        build_schema(net(), LayerMap({name: layer_format}, {}))


def test_grouped_convolutions_and_unequal_inputs_are_refused():
    model = nn.Module()
    model.conv, model.a, model.b = nn.Conv2d(128, 128, 3, groups=2), nn.Linear(64, 8), nn.Linear(128, 8)
    with pytest.raises(CheckpointError, match="conv: a convolution with groups=1 .* it has 2"):
        build_schema(model, LayerMap({"conv": FORMATS["w4a16"]}, {}))
    rank = LayerFormat("int4", None, rank=2)
    with pytest.raises(CheckpointError, match="b needs the in_features and kernel of a"):
        build_schema(model, LayerMap({"a": rank, "b": rank}, {"b": "a"}))


def test_a_parameter_without_values_is_found():
    model = net()
    check_complete(model)
    model.odd.to("meta")
    with pytest.raises(CheckpointError, match="odd.weight: values are needed, 2 of"):
        check_complete(model)


def test_shards_in_any_order_and_split(tools):
    from halfbyte.checkpoint import Unflattener
    from halfbyte.checkpoint.state_dict import weight_shapes

    model = tools.low_bit(net(), FORMATS["int4-svdq"])
    layer_map, flat = mapped(model), flatten(model)
    unflattener = Unflattener(layer_map, build_schema(net(), layer_map), weight_shapes(net(), layer_map))
    ready = {}
    for key in sorted(flat, reverse=True):
        ready |= unflattener.add({key: flat[key]})
    assert set(ready) == set(net().state_dict()) and not unflattener._waiting
    assert torch.equal(ready["to_k.weight"].dequantize(), model.to_k.weight.dequantize())
