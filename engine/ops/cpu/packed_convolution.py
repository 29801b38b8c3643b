"""A whole convolution on a packed INT8 weight in one call, its activations quantized on the way with one scale per image."""

from __future__ import annotations

import torch
from torch import Tensor

from ...env import extension
from ..conv2d import out_size
from .packed_weight import BF16_BRANCH, PackedWeight, address, as_float

Pair = list[int]


def convolve(
    weight: PackedWeight,
    x: Tensor,
    smooth: Tensor | None,
    bias: Tensor | None,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """x [B, C, H, W] -> [B, N, Ho, Wo], both of the weight's dtype and in the layout of x. The weight has K in the order (kh, kw, C).

    Codes are round(x * (1 / smooth / scale)), scale being max |x * (1 / smooth)| / 127 of the image; smooth [C] float32; bias [N].
    """
    operands = (x, weight.data, smooth, bias, weight.n, BF16_BRANCH[weight.dtype], weight.isa, kernel, stride, padding, dilation)
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        return torch.ops.halfbyte.packed_convolution(*operands)
    return packed_convolution(*operands)


def packed_convolution(
    x: Tensor,
    data: Tensor,
    smooth: Tensor | None,
    bias: Tensor | None,
    n: int,
    bf16: bool,
    isa: str,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    module, bias, threads = extension(), as_float(bias), torch.get_num_threads()
    out = empty_output(x, n, kernel, stride, padding, dilation)
    channels_last = is_channels_last(x)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    batch, channels, *size = x.shape
    shape = module.WeightShape(n, kernel[0] * kernel[1] * channels, 0, bf16)
    geometry = [*size, *out.shape[2:], *kernel, *stride, *padding, *dilation]
    peaks = torch.empty(batch, threads)
    bias_bf16 = bias is not None and bias.dtype == torch.bfloat16
    module.convolve(
        isa, shape, data.data_ptr(), batch, channels, geometry, x.data_ptr(), channels_last, address(smooth), address(bias), bias_bf16,
        peaks.data_ptr(), out.data_ptr(), threads,
    )  # fmt: skip
    return out


def is_channels_last(x: Tensor) -> bool:
    """Whether x is better read so; where both layouts are the same memory, planes win."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def empty_output(x: Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    size = out_size([x.shape[0], *x.shape[2:]], kernel, stride, padding, dilation)
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(x.shape[0], n, *size, dtype=x.dtype, device=x.device, memory_format=layout)


_library = torch.library.Library("halfbyte", "FRAGMENT")
_library.define(
    "packed_convolution(Tensor x, Tensor data, Tensor? smooth, Tensor? bias, int n, bool bf16, str isa, SymInt[] kernel, "
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.impl("packed_convolution", packed_convolution, "CPU")


@torch.library.register_fake("halfbyte::packed_convolution", lib=_library)
def fake(x, data, smooth, bias, n, bf16, isa, kernel, stride, padding, dilation):
    return empty_output(x, n, kernel, stride, padding, dilation)
