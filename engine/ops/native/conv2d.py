"""Convolutions on the compiled kernels: products whose rows of activations are the pixels under the kernel."""

from __future__ import annotations

from torch import Tensor

from ..conv2d import out_size
from .gemm import Epilogue, Product
from .operands import one_half_dtype

KERNEL_NAMES = {"int4": "conv2d_w4a4", "int8": "conv2d_w8a8"}
MOST_TAPS = 32  # csrc/cuda/pixel_rows.h


def conv2d_file(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, format, *geometry_and_epilogue) -> str:
    return f"sm80_{KERNEL_NAMES[format]}"


def conv2d_rejects(
    qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias,
    format, image, kernel, stride, padding, dilation, out_dtype, *epilogue,
) -> str | None:  # fmt: skip
    if format not in KERNEL_NAMES:
        return f"int4 or int8 codes needed, got {format}"
    if kernel[0] * kernel[1] > MOST_TAPS:
        return f"a kernel of at most {MOST_TAPS} taps needed, got {kernel[0]} x {kernel[1]}"
    width = qx.shape[1] // ascales.shape[0]
    if format == "int8" and width % 64:
        return f"a multiple of 64 channels for every activation scale needed, got {width}"
    product = Product(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype)
    scales = {"ascales": ascales.dtype, "wscales": wscales.dtype} if format == "int4" else {}
    return product.reason_against(*epilogue) or one_half_dtype(**scales, low_rank_act=low_rank_act.dtype)


def conv2d(
    kernels, qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias,
    format, image, kernel, stride, padding, dilation, out_dtype, epilogue=Epilogue(),
) -> Tensor:  # fmt: skip
    batch, *in_size = image
    height, width = out_size(image, kernel, stride, padding, dilation)
    geometry = kernels.ConvGeometry(*in_size, height, width, *kernel, *stride, *padding, *dilation, qx.shape[1])
    product = Product(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype)
    y = product.run(kernels, KERNEL_NAMES[format], geometry, epilogue=epilogue)
    return y.reshape(batch, height, width, -1)
