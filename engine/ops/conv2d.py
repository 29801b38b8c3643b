"""Convolution of quantized channels-last activations with a low-bit weight: an implicit matrix product, one K-segment per tap."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import dequantize_weight
from .checks import expect_one_of
from .operands import CODE_DTYPE, add_low_rank_and_bias, check_act, check_companions, check_weight, dequantize_act
from .registry import Op


@Op
def conv2d(
    qx: Tensor,
    ascales: Tensor,
    qweight: Tensor,
    wscales: Tensor,
    wtscale: Tensor | None,
    low_rank_act: Tensor,
    proj_up: Tensor,
    bias: Tensor | None,
    format: str,
    image: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    out_dtype: torch.dtype,
) -> Tensor:
    """y [B, Ho, Wo, N] = conv(x, weight) + low_rank_act @ proj_up^T + bias, accumulated in float32; zero padding.

    qx and ascales as `quantize_act` gives them, signed, for M = B*H*W pixels of C channels, image = (B, H, W); qweight and
    wscales as stored for K = kh*kw*C in the order (kh, kw, C); wtscale float32 [1] for nvfp4; low_rank_act [B*Ho*Wo, R];
    proj_up [N, R]; bias [N].
    """
    batch, height, width = image
    x = dequantize_act(qx, ascales, format).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    weight = dequantize_weight(qweight, wscales, wtscale, format)
    weight = weight.reshape(weight.shape[0], kernel[0], kernel[1], x.shape[1]).permute(0, 3, 1, 2)
    y = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation).permute(0, 2, 3, 1)
    out = add_low_rank_and_bias(y.reshape(-1, weight.shape[0]), low_rank_act, proj_up, bias)
    return out.to(out_dtype).reshape(batch, *out_size(image, kernel, stride, padding, dilation), weight.shape[0])


def out_size(image: list[int], kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> tuple[int, int]:
    """(Ho, Wo)."""
    height, width = ((image[1 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    return height, width


@conv2d.set_fake
def fake(
    qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias,
    format, image, kernel, stride, padding, dilation, out_dtype,
):  # fmt: skip
    height, width = out_size(image, kernel, stride, padding, dilation)
    return qx.new_empty((image[0], height, width, qweight.shape[0]), dtype=out_dtype)


@conv2d.set_check
def check(
    qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias,
    format, image, kernel, stride, padding, dilation, out_dtype,
):  # fmt: skip
    expect_one_of("format", format, tuple(CODE_DTYPE))
    pairs = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for name, value in {"image": image, **pairs}.items():
        if len(value) != (3 if name == "image" else 2):
            raise ValueError(f"{name}: {3 if name == 'image' else 2} integers needed, got {list(value)}")
    batch, height, width = image
    if batch * height * width != qx.shape[0]:
        raise ValueError(f"image: {list(image)} needs {batch * height * width} rows of qx, got {qx.shape[0]}")
    channels = check_act(qx, ascales, format)
    n = check_weight(qweight, wscales, wtscale, kernel[0] * kernel[1] * channels, format)
    out_height, out_width = out_size(image, kernel, stride, padding, dilation)
    check_companions(batch * out_height * out_width, n, low_rank_act, proj_up, bias, out_dtype)
    return batch, out_height, out_width, n
