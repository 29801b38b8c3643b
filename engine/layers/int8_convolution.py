"""A convolution's weight folded to INT8 with one scale per output channel, for INT8 activations with one scale per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..env import extension
from ..ops.cpu import DTYPES, PackedWeight, convolve, pack
from ..ops.cpu.backend import K_LIMIT
from .branch import Branch, branches_of_side, sum_branches
from .fold import FoldedWeight, fold
from .matrix import kernel_of
from .merged_branch import merges_branch

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Int8Convolution:
    """weight: packed, K in the order (kh, kw, C); smooth: float32 [C]; branches: fused user adapters."""

    weight: PackedWeight
    smooth: Tensor | None
    kernel: tuple[int, int]
    branches: tuple[Branch, ...]
    reason: str = ""
    kind: str = "int8 w8a8"

    @property
    def nbytes(self) -> int:
        smooth = 0 if self.smooth is None else self.smooth.nbytes
        return self.weight.data.nbytes + smooth + sum(branch.nbytes for branch in self.branches)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError("linear: a convolution's weight needed, got a linear layer")

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
        images = x.to(self.weight.dtype)
        stride_pair, dilation_pair = pair(stride), pair(dilation)
        if isinstance(padding, str):
            images, padding_pair = padded(images, padding, self.kernel, dilation_pair), [0, 0]
        else:
            padding_pair = pair(padding)
        y = convolve(self.weight, images, self.smooth, bias, list(self.kernel), stride_pair, padding_pair, dilation_pair)
        return sum_branches(self.branches, x, y, (stride, padding, dilation)).to(x.dtype)


def pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def padded(x: Tensor, padding: str, kernel: tuple[int, int], dilation: list[int]) -> Tensor:
    """x with the zeros of torch's padding "same", one more after than before where they are odd, or "valid"."""
    if padding == "valid":
        return x
    height, width = (spread * (side - 1) for spread, side in zip(dilation, kernel, strict=True))
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def reason_against_int8(weight: LowBitWeight) -> str | None:
    """One sentence why a convolution cannot run in INT8 here, or None."""
    if not extension():
        return "convolutions run in INT8 with the C++ extension, which was not built"
    if weight.dtype not in DTYPES:
        return f"INT8 convolutions compute in float32 or bfloat16, not {str(weight.dtype).removeprefix('torch.')}"
    if weight.shape[1:].numel() > K_LIMIT:
        return f"INT8 sums are exact up to {K_LIMIT} products, it has {weight.shape[1:].numel()}"
    rank = weight.layer_format.rank
    merges = not rank or merges_branch(weight.storage, weight.layer_format, tuple(weight.shape), "int8")
    return None if merges else "its low-rank branch does not merge into INT8"


def fold_convolution(weight: LowBitWeight, reason: str) -> Int8Convolution:
    """Fold the stored weight; user adapters stay beside it, as unfused ones are."""
    shape = tuple(weight.shape)
    folded = fold(weight.storage, weight.layer_format, shape)
    return int8_convolution(folded, shape, weight.dtype, branches_of_side(weight), reason)


def int8_convolution(
    weight: FoldedWeight, shape: tuple[int, ...], dtype: torch.dtype, branches: tuple[Branch, ...] = (), reason: str = ""
) -> Int8Convolution:
    """For activations of dtype; shape [N, C, kh, kw]; the weight has no branch beside it."""
    packed = pack(weight.qweight, weight.wscales, None, None, dtype)
    # Smoothing repeats for every tap.
    smooth = None if weight.smooth is None else weight.smooth[: shape[1]].contiguous()
    return Int8Convolution(packed, smooth, kernel_of(shape), branches, reason)
