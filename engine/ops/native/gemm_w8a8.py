"""Products of 8-bit codes: on sm_90 by its warpgroup instructions where their kernel takes the call, else by warps."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from .gemm import BLOCK_N, W8A8_NEXT_LAYER_BLOCK_N, Epilogue, Product, next_segments_reject
from .next_layer import scale_columns
from .quantize import Quantization

HOPPER = (9, 0)
WARPS_FILE, WARPGROUPS_FILE = "sm80_gemm_w8a8", "sm90_gemm_w8a8"
SEGMENT_MULTIPLE = 128  # of warpgroups: the columns of a box


def gemm_w8a8_rejects(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype, *epilogue):
    product = Product(qx, ascales, qweight, wscales, None, low_rank_act, proj_up, bias, out_dtype)
    width = qx.shape[1] // ascales.shape[0]
    if ascales.shape[0] > 1 and width % 64:
        return f"segments must be a multiple of 64 columns wide, got {width}"
    block_n = BLOCK_N if ascales.shape[0] > 1 else W8A8_NEXT_LAYER_BLOCK_N
    return product.reason_against(*epilogue) or next_segments_reject(*(epilogue or (Epilogue(),)), qweight.shape[0], block_n)


def on_warps(
    kernels: ModuleType, qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype, epilogue=Epilogue(), out=None
) -> Tensor:
    product = Product(qx, ascales, qweight, wscales, None, low_rank_act, proj_up, bias, out_dtype)
    block_n = kernels.choose_gemm_w8a8_tile(qx.shape[0], qweight.shape[0], ascales.shape[0] > 1, True).block_n
    return product.run(kernels, "gemm_w8a8", qx.dtype == torch.float8_e4m3fn, epilogue=epilogue, block_n=block_n, out=out)


def warpgroups_reject(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype, epilogue=Epilogue()) -> str | None:
    product = Product(qx, ascales, qweight, wscales, None, low_rank_act, proj_up, bias, out_dtype)
    segments, promotes = ascales.shape[0], ascales.shape[0] > 1 or qx.dtype == torch.float8_e4m3fn
    if segments > 1 and (qx.shape[1] // segments) % SEGMENT_MULTIPLE:
        return f"segments must be a multiple of {SEGMENT_MULTIPLE} columns wide, got {qx.shape[1] // segments}"
    block_n = BLOCK_N if promotes else W8A8_NEXT_LAYER_BLOCK_N
    return product.reason_against(epilogue) or next_segments_reject(epilogue, qweight.shape[0], block_n)


def on_warpgroups(
    kernels: ModuleType, qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype, epilogue=Epilogue(), out=None
) -> Tensor:
    product = Product(qx, ascales, qweight, wscales, None, low_rank_act, proj_up, bias, out_dtype)
    e4m3, block_n, n = qx.dtype == torch.float8_e4m3fn, 0, qweight.shape[0]
    if epilogue.next is not None:
        next_columns = n // epilogue.width(n) * scale_columns(epilogue.next, epilogue.width(n))
        sizes = qx.shape[0], n, e4m3, ascales.shape[0] > 1, next_columns, kernels.multiprocessors()
        block_n = kernels.choose_sm90_gemm_w8a8_tile(*sizes).block_n
    return product.run(kernels, "sm90_gemm_w8a8", e4m3, epilogue=epilogue, block_n=block_n, out=out)


def chooses_warpgroups(product_args: tuple, epilogue: Epilogue = Epilogue()) -> bool:
    """Whether the tensors lie on sm_90 and the kernel made for it takes the call."""
    qx = product_args[0]
    on_hopper = qx.is_cuda and torch.cuda.get_device_capability(qx.device) == HOPPER
    return on_hopper and warpgroups_reject(*product_args, epilogue) is None


def gemm_w8a8(
    kernels, qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype, epilogue=Epilogue(), out=None
) -> Tensor:
    product_args = qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out_dtype
    run = on_warpgroups if chooses_warpgroups(product_args, epilogue) else on_warps
    return run(kernels, *product_args, epilogue, out)


def gemm_w8a8_file(*args) -> str:
    """Of the arguments of gemm_w8a8 or of a fused op that does not quantize its output."""
    return WARPGROUPS_FILE if chooses_warpgroups(args[:8]) else WARPS_FILE


def gemm_w8a8_quantizing_file(*args) -> str:
    """Of the arguments of gemm_w8a8_act_quantize."""
    activation, glu, *quantize_args = args[8:]
    epilogue = Epilogue(activation, glu, next=Quantization(*quantize_args))
    return WARPGROUPS_FILE if chooses_warpgroups(args[:8], epilogue) else WARPS_FILE
