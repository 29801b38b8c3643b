"""The input rows a layer multiplies its weight with: tokens of a linear, patches of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def weight_matrix(module: nn.Linear | nn.Conv2d) -> Tensor:
    """The weight as float32 [N, K]; the columns of a convolution are in the order (kh, kw, in_channels)."""
    weight = module.weight.detach().float()
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


def row_count(module: nn.Linear | nn.Conv2d, x: Tensor) -> tuple[int, int]:
    """How many rows the input holds, and how many belong to each sample, an entry of the first dimension."""
    if isinstance(module, nn.Conv2d):
        height, width = _output_size(module, x)
        count = (x.shape[0] if x.ndim == 4 else 1) * height * width
    else:
        count = x.numel() // x.shape[-1]
    return count, max(count // x.shape[0], 1) if x.ndim > 1 else 1


def gather_rows(module: nn.Linear | nn.Conv2d, x: Tensor, index: Tensor) -> Tensor:
    """The rows at `index`, counted over the flattened output positions: [len(index), K] in x's dtype."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])[index.to(x.device)]
    x = x if x.ndim == 4 else x.unsqueeze(0)
    height, width = _output_size(module, x)
    index = index.to(x.device)
    rows, columns = index // width % height, index % width
    padded = nn.functional.pad(x, (module.padding[1],) * 2 + (module.padding[0],) * 2)
    down, right = (
        start.unsqueeze(1) * stride + torch.arange(size, device=x.device) * dilation
        for start, stride, size, dilation in zip((rows, columns), module.stride, module.kernel_size, module.dilation, strict=True)
    )
    sample = (index // (height * width))[:, None, None]
    return padded[sample, :, down.unsqueeze(2), right.unsqueeze(1)].flatten(1)


def _output_size(module: nn.Conv2d, x: Tensor) -> tuple[int, int]:
    axes = zip(x.shape[-2:], module.padding, module.dilation, module.kernel_size, module.stride, strict=True)
    height, width = ((size + 2 * pad - gap * (kernel - 1) - 1) // stride + 1 for size, pad, gap, kernel, stride in axes)
    return height, width
