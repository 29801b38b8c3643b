"""Loaded tensors on the memory boundaries that allocated ones have.

A tensor mapped from a file starts wherever the header before it ends. CPU kernels take other paths through unaligned memory and sum in
another order, so the same weights would give other bits than before they were saved.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

BOUNDARY = 64


def align(model: nn.Module) -> None:
    """Move every plain CPU parameter and buffer that does not start on a 64-byte boundary to memory of its own."""
    for tensor in chain(model.parameters(), model.buffers()):
        if type(tensor.data) is Tensor and tensor.device.type == "cpu" and tensor.data_ptr() % BOUNDARY:
            tensor.data = tensor.data.clone(memory_format=torch.preserve_format)
