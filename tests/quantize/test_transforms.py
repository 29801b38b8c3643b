"""Each transform alone: invariants, and that it lowers the error it is there to lower."""

import pytest
import torch
from torch import nn

from halfbyte.formats import LayerFormat, companion_dtype, dequantize_weight, quantize_weight
from halfbyte.quantize import smooth
from halfbyte.quantize.activation import fake_quantize_input
from halfbyte.quantize.gptq import gptq
from halfbyte.quantize.rounding import WeightGrid
from halfbyte.quantize.rows import gather_rows, row_count, weight_matrix
from halfbyte.quantize.shift import GELU_SHIFT

FORMATS = {
    "int4": LayerFormat("int4", "int4"),
    "nvfp4": LayerFormat("nvfp4", "nvfp4"),
    "nvfp4_four_over_six": LayerFormat("nvfp4", "nvfp4", four_over_six=True),
    "int8": LayerFormat("int8", "int8"),
    "fp8": LayerFormat("fp8", "fp8"),
}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated_rows(rows, columns, seed=0):
    """Rows whose columns share directions, so that GPTQ has something to gain."""
    shared = randn(rows, columns // 4, seed=seed) @ randn(columns // 4, columns, seed=99) / columns**0.5
    return shared + 0.1 * randn(rows, columns, seed=seed + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_grid_stores_what_the_formats_store(name, dtype):
    weight, sizes = randn(40, 192), [24, 16]
    grid = WeightGrid.fit(weight, sizes, FORMATS[name], companion_dtype(dtype))
    values = grid.nearest(weight)
    for part, rounded, storage in zip(weight.split(sizes), values.split(sizes), grid.store(values), strict=True):
        expected = quantize_weight(part, FORMATS[name].weight, dtype, FORMATS[name].four_over_six)
        assert {key: value.dtype for key, value in storage.items()} == {key: value.dtype for key, value in expected.items()}
        assert all(torch.equal(storage[key].float(), expected[key].float()) for key in expected)
        restored = dequantize_weight(storage["qweight"], storage["wscales"], storage.get("wtscale"), FORMATS[name].weight)
        torch.testing.assert_close(restored, rounded, rtol=1e-6, atol=0)


def test_smoothing_undoes_any_diagonal_scaling():
    x, weight = randn(257, 128).abs() + 0.1, randn(24, 128, seed=1)
    scaling = torch.exp2(torch.randint(-6, 7, (128,), generator=torch.Generator().manual_seed(2)).float())
    plain, injected = (
        smooth.smooth_factor(smooth.span(x * s, 128), smooth.span(weight / s, 128), 0.5, 0.5, "int4", torch.float32)
        for s in (torch.ones(128), scaling)
    )
    ratio = injected / plain / scaling
    torch.testing.assert_close(ratio, ratio[:1].expand(128))
    torch.testing.assert_close((x * scaling) / injected * ratio[0], x / plain)
    torch.testing.assert_close((weight / scaling) * injected / ratio[0], weight * plain)


def test_there_are_39_candidates_and_the_best_one_wins():
    pairs = smooth.candidates()
    assert len(pairs) == len(set(pairs)) == 39
    assert {round(a + b, 9) for a, b in pairs if b} == {1.0}
    goal = torch.tensor([0.3, 0.7])
    _, pair = smooth.search(lambda a, b: torch.tensor([a, b]), lambda factor: float((factor - goal).abs().sum()))
    assert pair == pytest.approx((0.3, 0.7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["int4", "nvfp4"])
def test_factor_is_finite_positive_and_exact_in_its_dtype(activation, dtype):
    act, weight = torch.tensor([0.0, 1e-9, 3.0, 7e4]), torch.tensor([1.0, 0.0, 1e-8, 40.0])
    for pair in smooth.candidates():
        factor = smooth.smooth_factor(act, weight, *pair, activation, dtype)
        assert torch.isfinite(factor).all() and (factor > 0).all()
        assert torch.equal(factor.to(dtype).float(), factor)


def test_unsigned_shifted_activations_are_better_after_gelu():
    x = nn.functional.gelu(randn(513, 192))
    ones = torch.ones(192)
    signed, shifted = (
        (fake_quantize_input(x, ones, LayerFormat("int4", "int4", act_shift=shift), torch.float32) - x).square().sum()
        for shift in (0.0, GELU_SHIFT)
    )
    assert shifted < 0.6 * signed


GELUS = {
    "erf": nn.functional.gelu,
    "tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize("form", GELUS)
def test_shift_covers_every_gelu(form):
    assert float(GELUS[form](torch.linspace(-20, 5, 400_001, dtype=torch.float64)).min()) > -GELU_SHIFT


@pytest.mark.parametrize("name", ["int4", "nvfp4", "int8", "fp8"])
def test_gptq_beats_nearest_on_held_out_rows(name):
    weight = randn(56, 192)
    grid = WeightGrid.fit(weight, [56], FORMATS[name], torch.float32)
    fit, held_out = correlated_rows(900, 192), correlated_rows(301, 192, seed=7)
    solved = gptq(weight, grid, fit.t() @ fit)
    nearest, better = (((held_out @ (values - weight).t()).square().sum()) for values in (grid.nearest(weight), solved))
    assert better < 0.8 * nearest
    torch.testing.assert_close(grid.nearest(solved), solved)


def test_gptq_with_uncorrelated_inputs_is_nearest():
    weight = randn(24, 192)
    grid = WeightGrid.fit(weight, [24], FORMATS["int4"], torch.float32)
    assert torch.equal(gptq(weight, grid, torch.eye(192)), grid.nearest(weight))


def test_gptq_survives_silent_and_duplicate_channels():
    x = correlated_rows(64, 128)
    x[:, 5], x[:, 9] = 0, x[:, 8]
    weight = randn(16, 128)
    grid = WeightGrid.fit(weight, [16], FORMATS["int4"], torch.float32)
    assert torch.isfinite(gptq(weight, grid, x.t() @ x)).all()
    with pytest.raises(ValueError, match="gram: a finite positive semidefinite matrix needed"):
        gptq(weight, grid, torch.full((128, 128), float("nan")))


ODD = dict(kernel_size=(3, 1), stride=(2, 1), padding=(2, 0), dilation=(1, 2))


@pytest.mark.parametrize("settings", [dict(kernel_size=3, padding=1), ODD], ids=["3x3", "odd"])
def test_patches_times_the_weight_matrix_are_the_convolution(settings):
    conv = nn.Conv2d(7, 5, bias=False, **settings)
    x = randn(2, 7, 9, 11)
    expected = conv(x).permute(0, 2, 3, 1).flatten(0, 2)
    count, per_sample = row_count(conv, x)
    assert (count, per_sample) == (len(expected), len(expected) // 2)
    index = torch.randperm(count)[:37]
    torch.testing.assert_close(gather_rows(conv, x, index) @ weight_matrix(conv).t(), expected[index])


def test_rows_of_a_linear_count_per_sample():
    linear = nn.Linear(6, 4)
    x = randn(3, 5, 6)
    assert row_count(linear, x) == (15, 5)
    assert torch.equal(gather_rows(linear, x, torch.tensor([7])), x[1, 2:3])
