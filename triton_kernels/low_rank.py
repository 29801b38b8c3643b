"""The low-rank branch of a tile: low_rank_act @ proj_up^T added to its float32 accumulator."""

from __future__ import annotations

import triton
import triton.language as tl


def low_rank_block(rank: int) -> int:
    """Columns of the branch that one step multiplies."""
    return 16 if rank <= 16 else 32


@triton.jit
def add_low_rank(acc, low_rank_act, proj_up, rows, columns, M, N, R, BLOCK_R: tl.constexpr):
    """acc [BLOCK_M, BLOCK_N] + low_rank_act[rows] @ proj_up[columns]^T; in float32 where the two dtypes differ."""
    # One stage, by way of registers: see tuning.stages_of.
    for r in tl.range(0, R, BLOCK_R, num_stages=1):
        rs = r + tl.arange(0, BLOCK_R)
        act = tl.load(low_rank_act + rows.to(tl.int64)[:, None] * R + rs[None, :], (rows < M)[:, None] & (rs < R)[None, :], 0.0)
        up = tl.load(proj_up + columns.to(tl.int64)[:, None] * R + rs[None, :], (columns < N)[:, None] & (rs < R)[None, :], 0.0)
        if act.dtype != up.dtype:
            act, up = act.to(tl.float32), up.to(tl.float32)
        acc = tl.dot(act, tl.trans(up), acc, input_precision="ieee")
    return acc
