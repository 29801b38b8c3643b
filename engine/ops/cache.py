"""The arithmetic of feature caches: how far a feature has moved, and the feature that is put in place of a computed one.

All compute in float32 and round once to the dtype of the first tensor; nothing is read back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim
from .registry import Op


@Op
def rel_l1(value: Tensor, base: Tensor) -> Tensor:
    """sum |value - base| / sum |base|, a float32 scalar on the tensors' device; NaN when both are all zero.

    value, base: one shape.
    """
    return (value.float() - base.float()).abs().sum() / base.float().abs().sum()


@rel_l1.set_fake
def fake_rel_l1(value, base):
    return value.new_empty((), dtype=torch.float32)


@rel_l1.set_check
def check_rel_l1(value, base):
    expect_dim("value", value, value.dim(), *FLOATS)
    expect("base", base, tuple(value.shape), *FLOATS)


@Op
def delta_apply(hidden_states: Tensor, delta: Tensor) -> Tensor:
    """hidden_states + delta, the change a skipped stretch of blocks made before. One shape."""
    return (hidden_states.float() + delta.float()).to(hidden_states.dtype)


@delta_apply.set_fake
def fake_delta_apply(hidden_states, delta):
    return hidden_states.new_empty(hidden_states.shape)


@delta_apply.set_check
def check_delta_apply(hidden_states, delta):
    expect_dim("hidden_states", hidden_states, hidden_states.dim(), *FLOATS)
    expect("delta", delta, tuple(hidden_states.shape), *FLOATS)


@Op
def affine_correct(hidden_states: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """hidden_states * scale + shift per channel. hidden_states [..., C], scale and shift [C]."""
    return (hidden_states.float() * scale.float() + shift.float()).to(hidden_states.dtype)


@affine_correct.set_fake
def fake_affine_correct(hidden_states, scale, shift):
    return hidden_states.new_empty(hidden_states.shape)


@affine_correct.set_check
def check_affine_correct(hidden_states, scale, shift):
    expect_dim("hidden_states", hidden_states, hidden_states.dim(), *FLOATS)
    expect("scale", scale, (hidden_states.shape[-1],), *FLOATS)
    expect("shift", shift, (hidden_states.shape[-1],), *FLOATS)


@Op
def forecast(history: list[Tensor], coefficients: Tensor) -> Tensor:
    """sum of coefficients[i] * history[i]: hold, linear, Taylor and Newton forecasts are coefficients.

    history: 1 to 8 tensors of one shape and dtype; coefficients: float32 [len(history)] on their device, so that a changed
    coefficient neither recompiles nor synchronises.
    """
    total = torch.zeros_like(history[0], dtype=torch.float32)
    for past, coefficient in zip(history, coefficients.unbind(), strict=True):
        total = total + coefficient * past.float()
    return total.to(history[0].dtype)


@forecast.set_fake
def fake_forecast(history, coefficients):
    return history[0].new_empty(history[0].shape)


@forecast.set_check
def check_forecast(history, coefficients):
    if not 1 <= len(history) <= 8:
        raise ValueError(f"history: 1 to 8 tensors needed, got {len(history)}")
    for index, past in enumerate(history):
        expect_dim(f"history[{index}]", past, past.dim(), *FLOATS)
        expect(f"history[{index}]", past, tuple(history[0].shape), history[0].dtype)
    expect("coefficients", coefficients, (len(history),), torch.float32)
    if coefficients.device != history[0].device:
        raise ValueError(f"coefficients: must be on {history[0].device} like the history, got {coefficients.device}")
