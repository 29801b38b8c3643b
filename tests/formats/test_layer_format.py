import json
import math

import pytest
import torch

from halfbyte.formats import LayerFormat, dequantize_weight, quantize_weight

PLAIN = {name: LayerFormat(name, name) for name in ("int4", "nvfp4", "int8", "fp8")}
SVDQ = LayerFormat("int4", "int4", rank=32, smooth=True, act_shift=0.171875)
CONV = LayerFormat("int4", "int4", rank=32, smooth=True)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_quantized_weight_has_exactly_the_tensors_of_the_schema(name, dtype):
    tensors = quantize_weight(torch.randn(24, 192), name, dtype)
    assert {key: (tuple(t.shape), t.dtype) for key, t in tensors.items()} == PLAIN[name].tensors(24, 192, dtype=dtype)
    assert sum(t.nbytes for t in tensors.values()) == PLAIN[name].stored_bytes(24, 192, dtype=dtype)


@pytest.mark.parametrize(("name", "limit"), [("int4", 0.11), ("nvfp4", 0.1), ("int8", 0.01), ("fp8", 0.03)])
def test_dequantize_weight_comes_back_close(name, limit):
    torch.manual_seed(0)
    weight = torch.randn(40, 256)
    tensors = quantize_weight(weight, name)
    error = dequantize_weight(tensors["qweight"], tensors["wscales"], tensors.get("wtscale"), name) - weight
    assert limit / 3 < error.norm() / weight.norm() < limit


def test_the_low_rank_branch_and_the_smooth_factor_are_counted():
    schema = SVDQ.tensors(3072, 1024)
    assert schema["proj_down"] == ((1024, 32), torch.bfloat16) and schema["proj_up"] == ((3072, 32), torch.bfloat16)
    assert schema["smooth_factor"] == ((1024,), torch.bfloat16)
    shared = SVDQ.stored_bytes(3072, 1024, owns_down=False)
    assert SVDQ.stored_bytes(3072, 1024) - shared == 1024 * 32 * 2
    assert shared == 3072 * 1024 // 2 + 3072 * 16 * 2 + 1024 * 2 + 3072 * 32 * 2


def test_a_convolution_stores_a_row_per_output_channel_and_smooths_per_input_channel():
    schema = CONV.tensors(128, 64, kernel=(3, 3))
    assert schema["qweight"][0] == (128, 9 * 64 // 2) and schema["wscales"][0] == (9, 128)
    assert schema["smooth_factor"][0] == (64,) and schema["proj_down"][0] == (9 * 64, 32)


def test_four_bit_storage_of_a_flux_layer_is_under_three_tenths_of_bf16():
    assert SVDQ.stored_bytes(12288, 3072) < 0.30 * 12288 * 3072 * 2
    assert math.prod((12288, 3072)) // 2 < SVDQ.stored_bytes(12288, 3072)


@pytest.mark.parametrize(
    ("layer_format", "sizes", "sentence"),
    [
        (SVDQ, (64, 100), "in_features 100 is not a multiple of group_size 64"),
        (PLAIN["nvfp4"], (64, 24), "in_features 24 is not a multiple of group_size 16"),
        (PLAIN["int8"], (64, 24), "in_features 24 is not a multiple of the alignment 16"),
        (SVDQ, (4, 64), "out_features 4 is not a multiple of 8"),
        (SVDQ, (64, 4, (3, 3)), "in_channels 4 is not a multiple of group_size 64"),
        (SVDQ, (64, 64, (3, 3)), "act_shift 0.171875 would not reach the zero padding of a 3x3 convolution"),
        (SVDQ, (16, 64), "rank 32 is larger than the 16 x 64 weight allows"),
    ],
    ids=["int4-k", "nvfp4-k", "int8-k", "n", "conv", "shifted-conv", "rank"],
)
def test_a_layer_that_does_not_fit_is_told_why(layer_format, sizes, sentence):
    assert layer_format.reason_against(*sizes) == sentence
    with pytest.raises(ValueError, match=sentence):
        layer_format.tensors(*sizes)


def test_a_layer_that_fits_has_no_reason_against():
    assert SVDQ.reason_against(192, 192) is None
    assert CONV.reason_against(64, 128, (3, 3)) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": "int3", "activation": None}, "weight: one of int4, .* got 'int3'"),
        ({"weight": "int8", "activation": "int4"}, "activation: one of None, int8 needed with int8 weights, got 'int4'"),
        ({"weight": "int4", "activation": "int4", "rank": -1}, "rank: an integer >= 0 needed, got -1"),
        ({"weight": "int4", "activation": "int4", "rank": True}, "rank: .* got True"),
        ({"weight": "int4", "activation": "int4", "smooth": 1}, "smooth: true or false needed, got 1"),
        ({"weight": "int4", "activation": "int4", "act_shift": -0.1}, "act_shift: a finite number >= 0 needed, got -0.1"),
        ({"weight": "int4", "activation": "int4", "act_shift": math.nan}, "act_shift: .* got nan"),
        ({"weight": "nvfp4", "activation": "nvfp4", "act_shift": 0.1}, "act_shift: only int4 activations are shifted"),
        ({"weight": "int4", "activation": "int4", "four_over_six": True}, "four_over_six: only nvfp4 weights have it, got int4"),
        ({"weight": "int4", "activation": "int4", "group_size": 64}, "group_size: not a field"),
        ({"weight": "int4"}, "activation: needed in a layer format, got only weight"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_field_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        LayerFormat.from_dict(values)


@pytest.mark.parametrize("layer_format", [SVDQ, *PLAIN.values(), LayerFormat("nvfp4", "int8", four_over_six=True)], ids=str)
def test_a_format_survives_json(layer_format):
    assert LayerFormat.from_dict(json.loads(json.dumps(layer_format.to_dict()))) == layer_format
