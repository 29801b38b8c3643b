"""Predictors are exact on polynomials of their order, at any spacing, and hand back what does not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.steps import DampedLinear, Hold, Linear, Quadratic

ALL = [Hold(), DampedLinear(), Linear(), Quadratic()]
ORDER = {Hold(): 0, Linear(): 1, Quadratic(): 2}
places = st.lists(st.integers(0, 60), min_size=3, max_size=3, unique=True)


def history_of(function, positions):
    return [(float(position), function(float(position))) for position in positions]


@settings(max_examples=50, deadline=None)
@given(places, st.integers(-5, 90), st.integers(0, 2**31))
@pytest.mark.parametrize("predictor", ORDER, ids=lambda p: type(p).__name__)
def test_exact_on_polynomials_of_its_order_at_uneven_positions(predictor, positions, target, seed):
    coefficients = torch.randn(ORDER[predictor] + 1, 7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def polynomial(x):
        return sum(coefficient * x**power for power, coefficient in enumerate(coefficients))

    forecast = predictor.predict(history_of(polynomial, sorted(positions)), float(target))
    scale = 1 + sum(abs(target) + max(positions) for _ in coefficients) ** ORDER[predictor]
    assert (forecast - polynomial(float(target))).abs().max() < 1e-8 * scale * coefficients.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("predictor", ALL, ids=lambda p: type(p).__name__)
def test_a_value_that_does_not_change_is_returned_bit_for_bit(predictor, dtype):
    value = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    forecast = predictor.predict([(0.0, value), (3.0, value.clone()), (4.0, value.clone())], 11.0)
    assert forecast.dtype == dtype and torch.equal(forecast, value)


@pytest.mark.parametrize("predictor", ALL, ids=lambda p: type(p).__name__)
def test_one_value_is_held_and_two_give_a_line(predictor):
    first, second = torch.zeros(3), torch.ones(3)
    assert torch.equal(predictor.predict([(2.0, second)], 9.0), second)
    if predictor.points > 1:
        slope = getattr(predictor, "damping", 1.0)
        assert torch.allclose(predictor.predict([(0.0, first), (2.0, second)], 4.0), torch.full((3,), 1 + slope))


@pytest.mark.parametrize("predictor", ALL, ids=lambda p: type(p).__name__)
def test_repeated_positions_lower_the_order_and_stay_finite(predictor):
    history = [(0.0, torch.zeros(3)), (4.0, torch.ones(3)), (4.0, torch.full((3,), 5.0))]
    assert torch.isfinite(predictor.predict(history, 6.0)).all()
    assert torch.equal(predictor.predict(history[1:], 6.0), torch.full((3,), 5.0))


def test_damping_lies_between_holding_and_the_line():
    history = [(0.0, torch.tensor([0.0])), (1.0, torch.tensor([2.0]))]
    values = [float(DampedLinear(damping).predict(history, 3.0)) for damping in (0, 0.25, 1)]
    assert values == [2.0, 3.0, 6.0]


@pytest.mark.parametrize("damping", [-0.1, 1.5, "half", True, float("nan")])
def test_damping_out_of_range_is_refused(damping):
    with pytest.raises(ValueError, match="damping needs a number from 0 to 1"):
        DampedLinear(damping)


def test_arithmetic_on_half_precision_is_done_in_float32():
    history = [(0.0, torch.tensor([60000.0], dtype=torch.float16)), (1.0, torch.tensor([60000.0], dtype=torch.float16) - 6000)]
    forecast = Quadratic().predict([(-1.0, history[0][1]), *history], 1.5)
    assert torch.isfinite(forecast).all()
