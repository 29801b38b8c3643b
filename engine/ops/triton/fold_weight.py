"""What fold_weight rejects on Triton kernels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def fold_weight_rejects(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> str | None:
    return None if qweight.numel() else f"qweight must not be empty, got shape {list(qweight.shape)}"


FOLD_WEIGHT: dict[str, Callable[..., str | None]] = {"fold_weight": fold_weight_rejects}
