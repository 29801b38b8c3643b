"""Which calls of the matrix products the Triton kernels refuse, and why."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .device import is_interpreted
from .fold_weight import fold_weight_rejects

Rejects = Callable[..., str | None]


def branch_rejects(low_rank_act: Tensor, proj_up: Tensor) -> str | None:
    if low_rank_act.dtype == proj_up.dtype:
        return None
    return f"low_rank_act and proj_up of one dtype needed, got {low_rank_act.dtype} and {proj_up.dtype}"


def fp8_rejects(codes: Tensor) -> str | None:
    if codes.dtype != torch.float8_e4m3fn or is_interpreted():
        return None
    capability = torch.cuda.get_device_capability(codes.device)
    if capability >= (8, 9):
        return None
    return f"E4M3 codes need the tensor cores of sm_89 or later, not sm_{capability[0]}{capability[1]}"


def gemm_w8a8_rejects(qx, ascales, qweight, wscales, low_rank_act, proj_up, *rest) -> str | None:
    return fp8_rejects(qx) or branch_rejects(low_rank_act, proj_up)


def gemm_w4a8_rejects(
    qx, ascales, qweight, wscales, channel_scales, product_scales, low_rank_act, proj_up, *rest
) -> str | None:
    return fold_weight_rejects(qweight, wscales, channel_scales, "") or fp8_rejects(qx) or branch_rejects(low_rank_act, proj_up)


def gemm_w4a4_rejects(qx, ascales, qweight, wscales, low_rank_act, proj_up, *rest) -> str | None:
    return branch_rejects(low_rank_act, proj_up)


def gemm_nvfp4_rejects(qx, ascales, qweight, wscales, wtscale, low_rank_act, proj_up, *rest) -> str | None:
    return branch_rejects(low_rank_act, proj_up)


def with_fused_ops(product: str, rejects: Rejects) -> dict[str, Rejects]:
    return {f"{product}{epilogue}": rejects for epilogue in ("", "_act", "_act_quantize", "_gate_residual")}


GEMM_W8A8 = with_fused_ops("gemm_w8a8", gemm_w8a8_rejects)
GEMM_W4A8 = {"gemm_w4a8": gemm_w4a8_rejects}
GEMM_W4A4 = with_fused_ops("gemm_w4a4", gemm_w4a4_rejects)
GEMM_NVFP4 = with_fused_ops("gemm_nvfp4", gemm_nvfp4_rejects)
