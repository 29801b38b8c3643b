"""Checks on values and on the finished model, for what no header shows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .header import CheckpointError

POSITIVE = ("wscales", "wtscale", "smooth_factor")
FINITE = ("proj_down", "proj_up")


def check_layer(name: str, storage: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless all scales are finite and > 0 and the low-rank branch is finite."""
    for key in (*POSITIVE, *FINITE):
        if key not in storage:
            continue
        values = storage[key].float()
        wrong = ~values.isfinite() | (values <= 0) if key in POSITIVE else ~values.isfinite()
        if bool(wrong.any()):
            needed = "finite values > 0 are" if key in POSITIVE else "finite values are"
            first = values[wrong][0].item()
            raise CheckpointError(
                f"{name}.{key}: {needed} needed, {int(wrong.sum())} of {values.numel()} are not, the first is {first}"
            )


def check_complete(model: nn.Module) -> None:
    """Raises CheckpointError when a parameter or buffer was left on the meta device, without values."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if empty := [name for name, tensor in tensors if tensor.device == torch.device("meta")]:
        raise CheckpointError(
            f"{empty[0]}: values are needed, {len(empty)} of {len(tensors)} tensors of the model have none (meta device)"
        )
