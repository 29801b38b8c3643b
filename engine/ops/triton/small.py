"""q/k norm with RoPE and the caches' arithmetic in Triton: any float dtype."""

from __future__ import annotations

from torch import Tensor

MOST_IN_A_NORM = 2**13


def empty_rejects(x: Tensor, *args) -> str | None:
    return None if x.numel() else f"an empty tensor of shape {list(x.shape)} is left to the reference"


def forecast_rejects(history: list[Tensor], coefficients: Tensor) -> str | None:
    return empty_rejects(history[0])


def qk_norm_rope_rejects(q, k, q_weight, k_weight, cos, sin, eps, rope) -> str | None:
    for name, x, weight in (("q", q, q_weight), ("k", k, k_weight)):
        if not x.numel():
            return f"{name} must not be empty, got shape {list(x.shape)}"
        if weight is not None and weight.shape[0] > MOST_IN_A_NORM:
            return f"{name} must be normalized over at most {MOST_IN_A_NORM} elements, got {weight.shape[0]}"
    return None


def joint_qkv_norm_rope_rejects(first_q, first_k, first_v, second_q, second_k, second_v, *rest) -> str | None:
    operands = {"first_q": first_q, "first_k": first_k, "second_q": second_q, "second_k": second_k}
    for name, x in operands.items():
        if not x.numel():
            return f"{name} must not be empty, got shape {list(x.shape)}"
    if (width := first_q.shape[3]) > MOST_IN_A_NORM:
        return f"heads must be at most {MOST_IN_A_NORM} wide, got {width}"
    return None


CACHE = {
    "rel_l1": empty_rejects,
    "delta_apply": empty_rejects,
    "affine_correct": empty_rejects,
    "forecast": forecast_rejects,
}
QK_NORM_ROPE = {"qk_norm_rope": qk_norm_rope_rejects, "joint_qkv_norm_rope": joint_qkv_norm_rope_rejects}
