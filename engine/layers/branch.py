"""A term beside the quantized product that reads the raw input: the low-rank branch, or a user adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from .matrix import from_matrix

if TYPE_CHECKING:
    from .weight import LowBitWeight


@dataclass(frozen=True)
class Branch:
    """down [R, K] or [R, C, kh, kw], then up [N, R] or [N, R, 1, 1]; without down, up alone with the shape of the weight."""

    down: Tensor | None
    up: Tensor

    @property
    def nbytes(self) -> int:
        return self.up.nbytes + (0 if self.down is None else self.down.nbytes)

    def linear(self, x: Tensor) -> Tensor:
        """x [..., K] -> float32 [..., N], the product with down rounded to x's dtype as kernels store it."""
        low_rank_act = x if self.down is None else F.linear(x.float(), self.down).to(x.dtype)
        return F.linear(low_rank_act.float(), self.up)

    def conv2d(self, x: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        """x [B, C, H, W] -> float32 [B, N, H', W']."""
        if self.down is None:
            return F.conv2d(x.float(), self.up, None, stride, padding, dilation)
        low_rank_act = F.conv2d(x.float(), self.down, None, stride, padding, dilation).to(x.dtype)
        return F.conv2d(low_rank_act.float(), self.up)


def make_branch(down: Tensor | None, up: Tensor, shape: tuple[int, ...]) -> Branch:
    """down [R, K], up [N, R] of a weight of this shape, as float32 in the form its convolution needs."""
    up = up.float().contiguous()
    if down is None:
        return Branch(None, from_matrix(up, shape))
    down = from_matrix(down.float(), (down.shape[0], *shape[1:])).contiguous()
    return Branch(down, up[:, :, None, None] if len(shape) == 4 else up)


def low_rank_branch(weight: LowBitWeight) -> tuple[Branch, ...]:
    """The stored low-rank branch, if the format has one."""
    return (make_branch(weight.proj_down.t(), weight.proj_up, tuple(weight.shape)),) if weight.layer_format.rank else ()


def branches_of_side(weight: LowBitWeight) -> tuple[Branch, ...]:
    """The fused user adapters, the low-rank ones as one."""
    shape = tuple(weight.shape)
    branches = (make_branch(weight.side_down, weight.side_up, shape),) if weight.side_up is not None else ()
    return branches if weight.side_dense is None else (*branches, make_branch(None, weight.side_dense, shape))


def sum_branches(branches: tuple[Branch, ...], x: Tensor, y: Tensor, geometry: tuple[Any, ...] = ()) -> Tensor:
    """y plus what every branch makes of x; geometry: stride, padding and dilation of a convolution."""
    for branch in branches:
        y = y + (branch.conv2d(x, *geometry) if geometry else branch.linear(x))
    return y
