"""gemm_w4a16 in Triton: any float dtype."""

from __future__ import annotations


def gemm_w4a16_rejects(x, smooth, qweight, wscales, wtscale, low_rank_act, proj_up, bias, out_dtype) -> str | None:
    return "qweight must begin at a multiple of 4 bytes" if qweight.data_ptr() % 4 else None


TABLE = {"gemm_w4a16": gemm_w4a16_rejects}
