"""The whole recipe on one input group: each part lowers the held-out output error; what is stored is what was scored."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from halfbyte.formats import LayerFormat, dequantize_weight
from halfbyte.quantize import RECIPES, quantize_group
from halfbyte.quantize.activation import fake_quantize_input
from halfbyte.quantize.calibrate import Samples
from halfbyte.quantize.shift import GELU_SHIFT

RECIPE = replace(RECIPES["svdq_int4"], iterations=30)
NEAREST = replace(RECIPE, gptq=False)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def outlier_layer(out_features=88, columns=192, gelu=False, dtype=torch.float32):
    """A linear with a few strong weight directions, and correlated rows of which 3 % of the channels are 30 times larger."""
    generator = torch.Generator().manual_seed(11)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    scale = torch.ones(columns)
    scale[torch.randperm(columns, generator=generator)[: columns // 32]] = 30
    weight = (randn(out_features, columns) + randn(out_features, 8) @ randn(8, columns)) / columns**0.5
    rows = randn(1024, columns) @ (torch.eye(columns) + randn(columns, columns) / columns**0.5)
    rows = (nn.functional.gelu(rows) if gelu else rows) * scale
    layer = nn.Linear(columns, out_features).to(dtype)
    layer.weight.data = (weight / scale).to(dtype)
    rows = rows.to(dtype)
    return layer, Samples(rows[:768], rows[768:])


def output(storage, layer_format, x, dtype):
    """The layer's definition, written out: Qa((x + shift)/smooth) Wq^T - shift/smooth Wq^T + (x down) up^T."""
    factor = storage.get("smooth_factor", torch.ones(x.shape[-1])).float()
    weight = dequantize_weight(storage["qweight"], storage["wscales"], storage.get("wtscale"), layer_format.weight)
    y = fake_quantize_input(x, factor, layer_format, dtype) @ weight.t()
    return y + x.float() @ storage["proj_down"].float() @ storage["proj_up"].float().t() if layer_format.rank else y


def sqnr(layer_format, recipe=RECIPE, **data):
    layer, samples = outlier_layer(**data)
    return quantize_group("layer", [layer], layer_format, recipe, samples).sqnr


def test_svdquant_beats_smoothing_beats_nearest_under_outliers():
    nearest, smooth, svdquant = (
        sqnr(LayerFormat("int4", "int4", rank, smooth), NEAREST) for rank, smooth in ((0, False), (0, True), (32, True))
    )
    assert svdquant > smooth + 1 > nearest + 6
    assert sqnr(LayerFormat("int4", "int4", 32, True)) >= svdquant


def test_more_rank_is_better():
    found = [sqnr(LayerFormat("int4", "int4", rank, True), NEAREST) for rank in (0, 8, 16, 32)]
    assert found == sorted(found)


def test_nvfp4_beats_int4_and_four_over_six_beats_six():
    int4, six, better = (
        sqnr(layer_format, NEAREST)
        for layer_format in (
            LayerFormat("int4", "int4", 16, True),
            LayerFormat("nvfp4", "nvfp4", 16, True),
            LayerFormat("nvfp4", "nvfp4", 16, True, four_over_six=True),
        )
    )
    assert int4 < six < better


def test_shift_after_gelu_helps():
    signed, shifted = (sqnr(LayerFormat("int4", "int4", 16, True, shift), NEAREST, gelu=True) for shift in (0.0, GELU_SHIFT))
    assert shifted > signed + 2


def test_gptq_helps_weight_only_layers_and_never_hurts():
    nearest, solved = (sqnr(LayerFormat("int4", None), recipe) for recipe in (NEAREST, RECIPE))
    assert solved > nearest + 1


def test_gptq_is_dropped_when_held_out_rows_say_so():
    layer, samples = outlier_layer(columns=192)
    few = Samples(samples.fit[:12], torch.randn(300, 192, generator=torch.Generator().manual_seed(1)))
    weight_only = LayerFormat("int4", None)
    with_gptq, without = (quantize_group("layer", [layer], weight_only, recipe, few) for recipe in (RECIPE, NEAREST))
    assert "GPTQ did worse" in with_gptq.note
    assert torch.equal(with_gptq.storages[0]["qweight"], without.storages[0]["qweight"])


@pytest.mark.parametrize(
    "layer_format",
    [
        LayerFormat("int4", "int4", 16, True),
        LayerFormat("int4", "int4", 16, True, GELU_SHIFT),
        LayerFormat("nvfp4", "nvfp4", 8, True, four_over_six=True),
        LayerFormat("int4", None),
        LayerFormat("int8", "int8"),
        LayerFormat("fp8", "fp8"),
    ],
    ids=lambda f: f"{f.weight}-{f.activation}-{f.act_shift:g}",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stored_tensors_follow_the_schema_and_give_the_reported_error(layer_format, dtype):
    layer, samples = outlier_layer(gelu=layer_format.act_shift > 0, dtype=dtype)
    found = quantize_group("layer", [layer], layer_format, RECIPE, samples)
    storage = found.storages[0]
    assert {k: (tuple(v.shape), v.dtype) for k, v in storage.items()} == layer_format.tensors(88, 192, dtype=dtype)
    x = samples.held_out
    expected = x.float() @ layer.weight.float().t()
    error = (output(storage, layer_format, x, dtype) - expected).square().sum()
    assert 10 * torch.log10(expected.square().sum() / error) == pytest.approx(found.sqnr, abs=0.01)
    assert found.sqnr > 12


def test_layers_of_one_input_share_the_down_factor_and_the_smoothing():
    layer, samples = outlier_layer(out_features=96)
    layers = [nn.Linear(192, size) for size in (32, 24, 40)]
    for part, weight in zip(layers, layer.weight.split([32, 24, 40]), strict=True):
        part.weight.data = weight.data
    first, *others = quantize_group("qkv", layers, LayerFormat("int4", "int4", 16, True), RECIPE, samples).storages
    for storage in others:
        assert storage["proj_down"] is first["proj_down"]
        assert torch.equal(storage["smooth_factor"], first["smooth_factor"])
    assert [len(storage["proj_up"]) for storage in (first, *others)] == [32, 24, 40]


def test_convolution_is_quantized_tap_by_tap():
    torch.manual_seed(2)
    conv = nn.Conv2d(64, 24, 3, padding=1)
    rows = torch.randn(600, 9, 64) * torch.linspace(0.2, 9, 64)
    layer_format = LayerFormat("int4", "int4", 16, True)
    samples = Samples(rows[:450].flatten(1), rows[450:].flatten(1))
    found = quantize_group("conv", [conv], layer_format, RECIPE, samples)
    storage = found.storages[0]
    assert {k: (tuple(v.shape), v.dtype) for k, v in storage.items()} == layer_format.tensors(24, 64, (3, 3), torch.float32)
    assert found.sqnr > quantize_group("conv", [conv], LayerFormat("int4", "int4"), RECIPE, samples).sqnr


def test_without_samples_the_branch_lowers_the_weight_error():
    layer, _ = outlier_layer()
    errors = []
    for rank, iterations in ((0, 1), (16, 1), (16, 60)):
        layer_format = LayerFormat("int4", "int4", rank, True)
        storage = quantize_group("layer", [layer], layer_format, replace(RECIPE, iterations=iterations)).storages[0]
        weight = dequantize_weight(storage["qweight"], storage["wscales"], None, "int4") / storage["smooth_factor"]
        branch = storage["proj_up"] @ storage["proj_down"].t() if rank else 0
        errors.append(float((weight + branch - layer.weight).square().sum()))
    assert errors[0] > errors[1] >= errors[2]


def test_the_same_arguments_give_the_same_bits():
    layer, samples = outlier_layer()
    layer_format = LayerFormat("int4", "int4", 16, True)
    first, again = (quantize_group("layer", [layer], layer_format, RECIPE, samples).storages[0] for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
