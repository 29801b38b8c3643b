"""Moves, conversions and copies keep a low-bit weight whole, and keep one down factor where there was one."""

import copy

import pytest
import torch
from torch import nn

from halfbyte.layers import prepare, share_down
from halfbyte.testing import relative_rms

QKV = ("to_q", "to_k", "to_v")


def down_pointers(model):
    return {model[name].weight.proj_down.data_ptr() for name in QKV}


def stored_bytes(model):
    return sum(module.weight.stored_bytes for module in model.values())


def to_bfloat16_and_back(model):
    return model.to(torch.bfloat16).to(torch.float32)


def through_meta(model):
    return copy.deepcopy(model).to("meta")


def loaded_into_a_copy(model):
    other = copy.deepcopy(model)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    return other


def loaded_by_assignment(model):
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict(), assign=True)
    return other


CONVERSIONS = [nn.Module.half, to_bfloat16_and_back, through_meta, copy.deepcopy, loaded_into_a_copy, loaded_by_assignment]


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda f: f.__name__)
def test_qkv_go_on_sharing_one_down_factor(make_attention, convert):
    model = make_attention()
    bytes_before, expected = stored_bytes(model), sum(
        module.weight.layer_format.stored_bytes(24, 64, dtype=torch.float32, owns_down=name in ("to_q", "to_out"))
        for name, module in model.items()
    )
    assert bytes_before == expected
    converted = convert(model)
    assert len({id(converted[name].weight.proj_down) for name in QKV}) == 1
    assert len(down_pointers(converted)) == 1
    if converted["to_q"].weight.dtype == torch.float32:
        assert stored_bytes(converted) == bytes_before


def test_deep_copies_own_their_memory(make_attention):
    model = make_attention()
    assert down_pointers(copy.deepcopy(model)).isdisjoint(down_pointers(model))


def test_one_of_a_group_converted_alone_leaves_the_others(make_attention):
    model = make_attention()
    pointer = down_pointers(model)
    model["to_k"].half()
    assert {model[name].weight.proj_down.data_ptr() for name in ("to_q", "to_v")} == pointer
    assert model["to_k"].weight.proj_down.dtype == torch.float16


def test_share_down_needs_equal_values(make_attention, make_linear):
    weights = [make_attention()["to_q"].weight, make_attention()["to_k"].weight]
    with pytest.raises(ValueError, match="proj_down: .* needs the same values"):
        share_down(weights)
    with pytest.raises(ValueError, match="proj_down: needed to share it, got a format of rank 0"):
        share_down([make_linear(rank=0).weight])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_dtype_converts_companions_and_leaves_codes(make_linear, make_conv, dtype):
    others = [make_linear(weight=name, activation=name) for name in ("nvfp4", "fp8")]
    for module in (make_linear(), make_conv(), *others):
        before = module.weight.storage
        module.to(dtype)
        weight = module.weight
        assert isinstance(weight, nn.Parameter) and weight.dtype == dtype
        schema = weight.layer_format.tensors(*weight.shape[:2], tuple(weight.shape[2:]) or (1, 1), dtype=dtype)
        kinds = {name: kind for name, (_, kind) in schema.items()}
        assert {name: tensor.dtype for name, tensor in weight.storage.items()} == kinds
        assert torch.equal(weight.qweight.view(torch.int8), before["qweight"].view(torch.int8))
        x = torch.randn(2, *([128] if weight.ndim == 2 else [64, 5, 5]), dtype=dtype)
        assert module(x).dtype == dtype


def test_dtypes_that_cannot_be_computed_in_are_refused(make_linear):
    with pytest.raises(ValueError, match="dtype: float16, bfloat16, float32 or float64 needed to compute in, got torch.float8"):
        make_linear().to(torch.float8_e4m3fn)


def test_what_was_prepared_follows_the_weight(make_linear):
    linear = make_linear()
    prepare(linear, "w4a4")
    x = torch.randn(3, 128)
    before = linear(x)
    copied = copy.deepcopy(linear)
    assert copied.weight.numerics == "w4a4" and torch.equal(copied(x), before)
    linear.to(torch.bfloat16)
    assert linear.weight.numerics == "w4a4"
    assert relative_rms(linear(x.bfloat16()).float(), before) < 0.05
    copied.weight.data += torch.ones(72, 128)
    torch.testing.assert_close(copied(x), before + x.sum(-1, keepdim=True), atol=1e-4, rtol=0)


def test_copy_writes_through_an_alias(make_linear):
    linear, other = make_linear(), make_linear()
    linear.weight.data.copy_(other.weight)
    x = torch.randn(3, 128)
    assert torch.equal(linear.weight.dequantize(), other.weight.dequantize())
    other.weight.data += torch.ones(72, 128)
    assert linear.weight.side == () and not torch.equal(linear.weight.dequantize(), other.weight.dequantize())
    torch.testing.assert_close(linear(x) - linear.bias, x @ linear.weight.dequantize().t(), atol=0.2, rtol=0)


def test_empty_like_is_a_low_bit_weight(make_attention):
    weight = make_attention()["to_k"].weight
    empty = torch.empty_like(weight, device="meta")
    assert type(empty) is type(weight) and empty.device.type == "meta" and not empty.owns_down
    assert {name: tensor.shape for name, tensor in empty.storage.items()} == {name: t.shape for name, t in weight.storage.items()}
    assert type(torch.empty_like(weight, dtype=torch.float16)) is torch.Tensor


def test_state_dict_holds_aliases(make_linear):
    linear = make_linear()
    state = linear.state_dict()
    assert state["weight"].qweight.data_ptr() == linear.weight.qweight.data_ptr()
    with pytest.raises(RuntimeError, match="size mismatch"):
        make_linear(n=64).load_state_dict(state)
