"""Where Triton kernels run: on GPUs from sm_80 on, and in Triton's interpreter on any machine."""

from __future__ import annotations

import os

import torch
from torch import Tensor

OLDEST = (8, 0)


def is_interpreted() -> bool:
    """Triton reads this variable once, when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def reason_against_device(tensor: Tensor) -> str | None:
    """One sentence why no Triton kernel takes tensors on this device, or None."""
    if is_interpreted():
        return None
    if not tensor.is_cuda:
        return f"tensors on a GPU needed, or Triton's interpreter (TRITON_INTERPRET=1); got them on {tensor.device}"
    capability = torch.cuda.get_device_capability(tensor.device)
    if capability < OLDEST:
        return f"Triton kernels are made for sm_80 and later, not sm_{capability[0]}{capability[1]}"
    return None
