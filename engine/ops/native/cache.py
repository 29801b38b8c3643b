"""The feature caches' arithmetic on the compiled kernels."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from .operands import DTYPE_CODE, addresses, dense, floats, stream_of


def empty_rejects(hidden_states: Tensor, *args) -> str | None:
    return None if hidden_states.numel() else f"an empty tensor of shape {list(hidden_states.shape)} is left to the reference"


def forecast_rejects(history: list[Tensor], coefficients: Tensor) -> str | None:
    return empty_rejects(history[0])


def rel_l1(kernels: ModuleType, value: Tensor, base: Tensor) -> Tensor:
    # The smallest allocation that keeps every block's two sums; a last block adds them in their order.
    partial_sums = torch.empty(kernels.rel_l1_workspace(value.numel()), dtype=torch.float32, device=value.device)
    out = torch.empty((), dtype=torch.float32, device=value.device)
    value, base = dense(value), dense(base)
    operands = addresses(kernels, value=value, base=base, partial_sums=partial_sums, out=out)
    value_floats, base_floats = floats(kernels, value, operands[0]), floats(kernels, base, operands[1])
    kernels.rel_l1(value_floats, base_floats, *operands[2:], value.numel(), stream_of(value))
    return out


def delta_apply(kernels: ModuleType, hidden_states: Tensor, delta: Tensor) -> Tensor:
    hidden_states, delta = dense(hidden_states), dense(delta)
    out = torch.empty(hidden_states.shape, dtype=hidden_states.dtype, device=hidden_states.device)
    x_at, delta_at, out_at = addresses(kernels, hidden_states=hidden_states, delta=delta, out=out)
    operands = floats(kernels, hidden_states, x_at), floats(kernels, delta, delta_at)
    kernels.delta_apply(*operands, out_at, out.numel(), stream_of(out))
    return out


def affine_correct(kernels: ModuleType, hidden_states: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    tensors = dict(hidden_states=dense(hidden_states), scale=dense(scale), shift=dense(shift))
    out = torch.empty(hidden_states.shape, dtype=hidden_states.dtype, device=hidden_states.device)
    *operands, out_at = addresses(kernels, **tensors, out=out)
    operands = [floats(kernels, tensor, address) for tensor, address in zip(tensors.values(), operands, strict=True)]
    kernels.affine_correct(*operands, out_at, out.numel(), hidden_states.shape[-1], stream_of(out))
    return out


def forecast(kernels: ModuleType, history: list[Tensor], coefficients: Tensor) -> Tensor:
    history, coefficients = [dense(past) for past in history], dense(coefficients)
    out = torch.empty(history[0].shape, dtype=history[0].dtype, device=history[0].device)
    named = {f"history[{index}]": past for index, past in enumerate(history)}
    *pasts, coefficients_at, out_at = addresses(kernels, **named, coefficients=coefficients, out=out)
    kernels.forecast(pasts, DTYPE_CODE[out.dtype], coefficients_at, out_at, out.numel(), stream_of(out))
    return out
