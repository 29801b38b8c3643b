import pytest
import torch

from halfbyte.ops import affine_correct, delta_apply, forecast, rel_l1
from halfbyte.testing import assert_close

X, Y, Z = torch.randn(3, 2, 5, 64, generator=torch.Generator().manual_seed(0)).unbind()


def test_rel_l1_is_the_change_over_the_base():
    want = (X - Y).double().abs().sum() / Y.double().abs().sum()
    got = rel_l1(X, Y)
    assert got.dtype == torch.float32 and got.shape == ()
    assert_close("rel_l1", got, want, "float32")
    assert rel_l1(X, X) == 0 and rel_l1(X, torch.zeros_like(X)) == torch.inf


def test_rel_l1_of_half_floats_does_not_overflow():
    base = torch.full((70000,), 60000.0, dtype=torch.float16)
    assert rel_l1(base / 2, base) == 0.5


def test_a_nan_anywhere_shows_in_rel_l1():
    broken = X.clone()
    broken[1, 4, 63] = torch.nan
    assert rel_l1(broken, Y).isnan() and rel_l1(Y, broken).isnan()
    assert rel_l1(0 * X, 0 * X).isnan()


def test_delta_apply_and_affine_correct_round_once():
    half = X.bfloat16()
    assert torch.equal(delta_apply(half, Y), (half.float() + Y).bfloat16())
    scale, shift = torch.rand(64), torch.randn(64)
    assert torch.equal(affine_correct(half, scale, shift), (half.float() * scale + shift).bfloat16())


def test_newton_coefficients_forecast_a_quadratic_exactly():
    def at(t):
        return X + t * Y + t * t * Z

    assert_close("forecast", forecast([at(2.0), at(1.0), at(0.0)], torch.tensor([3.0, -3.0, 1.0])), at(3.0), "float32")


def test_forecast_of_half_floats_rounds_once():
    history, coefficients = [X.bfloat16(), Y.bfloat16()], torch.tensor([1.7, -0.7])
    assert torch.equal(forecast(history, coefficients), (1.7 * history[0].float() - 0.7 * history[1].float()).bfloat16())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rel_l1(X, Y[0]), r"base: shape \[2, 5, 64\] needed, got \[5, 64\]"),
        (lambda: delta_apply(X, Y[..., :1]), r"delta: shape \[2, 5, 64\] needed, got \[2, 5, 1\]"),
        (lambda: affine_correct(X, torch.ones(2), torch.ones(64)), r"scale: shape \[64\] needed, got \[2\]"),
        (lambda: forecast([], torch.ones(0)), "history: 1 to 8 tensors needed, got 0"),
        (lambda: forecast([X, Y.half()], torch.ones(2)), r"history\[1\]: dtype float32 needed, got float16"),
        (lambda: forecast([X, Y], torch.ones(3)), r"coefficients: shape \[2\] needed, got \[3\]"),
    ],
    ids=["rel_l1", "delta_apply", "affine_correct", "no-history", "history", "coefficients"],
)
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
