"""The form that keeps 4-bit storage alone: codes are folded to 8 bits at each call, a part of the output channels at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .. import ops
from .branch import sum_branches
from .kernel_form import KernelForm, Pair

# Of folded codes, what stays in the L2 cache of a data-centre GPU while a product reads it.
CACHED_BYTES = 16 * 2**20
# Chunks end at full tiles of the products.
CHANNEL_MULTIPLE = 256


def chunk_channels(n: int, k: int) -> int:
    """How many of n output channels to fold at once, in equal parts: codes beyond the cache are written to memory and read again."""
    if n * k <= CACHED_BYTES:
        return n
    most = max(CACHED_BYTES // k // CHANNEL_MULTIPLE, 1) * CHANNEL_MULTIPLE
    parts = -(-n // most)
    return -(-n // parts // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


@dataclass(frozen=True)
class StreamedForm:
    """kernel: the form of the folded weight, but with the stored codes and group scales; its low-rank branch stays beside it.

    channel_scales: float32 [N], what codes are folded to, in units of the outer scale; product_scales: float32 [N], the same in
    units of the weight. Folded codes are ordinary tensors that live for one product: PyTorch's allocator hands the same memory to
    each next one on a stream, in a CUDA graph too, so layers share it without sharing state.
    """

    kernel: KernelForm
    channel_scales: Tensor
    product_scales: Tensor
    reason: str = ""

    @property
    def kind(self) -> str:
        return f"streamed {self.kernel.activation}"

    @property
    def nbytes(self) -> int:
        made = {id(scales): scales.nbytes for scales in (self.channel_scales, self.product_scales)}
        return self.kernel.nbytes + sum(made.values())

    @property
    def workspace_bytes(self) -> int:
        """The most that folded codes take during a call."""
        n, k = self.channel_scales.shape[0], 2 * self.kernel.qweight.shape[1]
        if len(self.kernel.shape) == 4:
            return n * k
        return chunk_channels(n, k) * k

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        qx, ascales, low_rank_act = self.kernel.quantized(rows)
        stored = self.kernel.qweight, self.kernel.wscales, self.channel_scales, self.product_scales
        channels = chunk_channels(*self.kernel.shape)
        y = ops.gemm_w4a8(qx, ascales, *stored, low_rank_act, self.kernel.proj_up, bias, channels, rows.dtype)
        return sum_branches(self.kernel.branches, x, y.unflatten(0, x.shape[:-1])).to(x.dtype)

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
        # Taken whole: the largest of image models have some 30 MB of codes, and outputs of its parts would have to be joined.
        folded = replace(self.kernel, qweight=self.codes(slice(None)), wscales=self.product_scales, wtscale=None)
        return folded.conv2d(x, bias, stride, padding, dilation)

    def codes(self, channels: slice) -> Tensor:
        """Those of these output channels, folded now."""
        qweight, wscales = self.kernel.qweight[channels], self.kernel.wscales[:, channels]
        return ops.fold_weight(qweight, wscales, self.channel_scales[channels], self.kernel.activation)
