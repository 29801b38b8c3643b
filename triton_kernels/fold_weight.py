"""4-bit codes and their group scales folded to 8-bit codes under one scale per output channel, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .numbers import from_e2m1, from_e4m3, rounded_bits, to_e4m3, widen
from .tuning import capability_of, config_for

OUT_DTYPE = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class FoldWeightConfig:
    """A program's output channels and columns: channels lie side by side in wscales, columns in qweight."""

    BLOCK_N: int
    BLOCK_K: int
    num_warps: int


def fold_weight_default(m: int, n: int, k: int, capability: tuple[int, int]) -> FoldWeightConfig:
    return FoldWeightConfig(32, 256, 4)


def fold_weight_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[FoldWeightConfig]:
    """The space that is searched."""
    return [FoldWeightConfig(rows, columns, warps) for rows in (16, 32, 64) for columns in (128, 256) for warps in (4, 8)]


@triton.jit
def decode(nibble, NVFP4: tl.constexpr):
    """int32 whose low nibble is a code -> float32."""
    if NVFP4:
        return from_e2m1(nibble & 0xF)
    else:
        return ((nibble << 28) >> 28).to(tl.float32)


@triton.jit
def encode(value, TO_FP8: tl.constexpr, HARDWARE_E4M3: tl.constexpr):
    """float32 -> the 8 bits of its code."""
    if TO_FP8:
        return to_e4m3(value, HARDWARE_E4M3).to(tl.int8, bitcast=True)
    else:
        return rounded_bits(tl.minimum(tl.maximum(value, -127.0), 127.0)).to(tl.int8)


@triton.jit
def fold_weight_kernel(
    qweight_ptr,
    wscales_ptr,
    channel_scales_ptr,
    out_ptr,
    n,
    k,
    stride_sg,
    stride_sn,
    NVFP4: tl.constexpr,
    TO_FP8: tl.constexpr,
    HARDWARE_E4M3: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    channel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    group = tl.program_id(1) * (BLOCK_K // GROUP_SIZE) + tl.arange(0, BLOCK_K // GROUP_SIZE)
    byte = tl.program_id(1) * (BLOCK_K // 2) + tl.arange(0, BLOCK_K // 2)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    row = channel.to(tl.int64)[:, None] * k
    inside = (channel < n)[:, None]

    packed = tl.load(qweight_ptr + row // 2 + byte[None, :], mask=inside & (byte < k // 2)[None, :], other=0).to(tl.int32)
    at_scale = group.to(tl.int64)[None, :] * stride_sg + channel[:, None] * stride_sn
    wscales = tl.load(wscales_ptr + at_scale, mask=inside & (group < k // GROUP_SIZE)[None, :], other=0)
    wscales = from_e4m3(wscales) if NVFP4 else widen(wscales)
    channel_scales = tl.load(channel_scales_ptr + channel, mask=channel < n, other=1.0)
    ratio = tl.div_rn(wscales, tl.broadcast_to(channel_scales[:, None], wscales.shape))
    if not TO_FP8:
        # No code is worth a NaN or an infinity in INT8: the scale of the channel has it.
        ratio = tl.where(ratio == ratio, tl.minimum(ratio, 1e30), 0.0)

    packed = tl.reshape(packed, [BLOCK_N, BLOCK_K // GROUP_SIZE, GROUP_SIZE // 2])
    ratio = ratio[:, :, None]
    low = encode(decode(packed, NVFP4) * ratio, TO_FP8, HARDWARE_E4M3)
    high = encode(decode(packed >> 4, NVFP4) * ratio, TO_FP8, HARDWARE_E4M3)
    codes = tl.reshape(tl.join(low, high), [BLOCK_N, BLOCK_K])
    tl.store(out_ptr + row + column[None, :], codes, mask=inside & (column < k)[None, :])


def fold_weight(qweight: Tensor, wscales: Tensor, channel_scales: Tensor, format: str) -> Tensor:
    nvfp4, device = wscales.dtype == torch.float8_e4m3fn, qweight.device
    n, k = qweight.shape[0], 2 * qweight.shape[1]
    kind = f"{'nvfp4' if nvfp4 else 'int4'}-{format}"
    config = config_for("fold_weight", device, kind, 1, n, k, fold_weight_default, fold_weight_configs)
    out = torch.empty(n, k, dtype=OUT_DTYPE[format], device=device)
    fold_weight_kernel[(triton.cdiv(n, config.BLOCK_N), triton.cdiv(k, config.BLOCK_K))](
        qweight.contiguous(), wscales.view(torch.uint8) if nvfp4 else wscales, channel_scales.contiguous(), out.view(torch.int8),
        n, k, *wscales.stride(),
        NVFP4=nvfp4, TO_FP8=format == "fp8", HARDWARE_E4M3=capability_of(device) >= (8, 9), GROUP_SIZE=16 if nvfp4 else 64,
        **vars(config),
    )  # fmt: skip
    return out
