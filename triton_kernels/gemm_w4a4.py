"""The INT4 product: codes widened to INT8, which all tensor cores multiply, and the sums rescaled group by group."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .epilogue import Epilogue, dtype_name, epilogue_constants, epilogue_operands, finish
from .fused_ops import fused_ops
from .gemm_tiles import GemmConfig, load_tile, rows_of_tile, tile_of_program, weight_rows_of_tile
from .nibbles import nibbles_at_top
from .numbers import INTERPRETED, widen
from .tuning import config_for

GROUP_SIZE = tl.constexpr(64)

UNSIGNED_NIBBLES = tl.constexpr("""{
    .reg .b32 high;
    and.b32 $0, $2, 0x0F0F0F0F;
    shr.u32 high, $2, 4;
    and.b32 $1, high, 0x0F0F0F0F;
}""")


@triton.jit
def unsigned_nibbles(packed):
    """int8 [..., K/2] of unsigned codes -> even and odd columns, int8 each."""
    if INTERPRETED:
        return (packed & 0xF).to(tl.int8), ((packed >> 4) & 0xF).to(tl.int8)
    else:
        types: tl.constexpr = (tl.int8, tl.int8)
        return tl.inline_asm_elementwise(UNSIGNED_NIBBLES, "=&r,=r,r", [packed], types, is_pure=True, pack=4)


@triton.jit(do_not_specialize=["M", "padded_rows"])
def gemm_w4a4_kernel(
    x_ptr, ascales_ptr, weight_ptr, wscales_ptr, operands, M, N, padded_rows, K: tl.constexpr, ACT_UNSIGNED: tl.constexpr,
    RANK: tl.constexpr, BLOCK_R: tl.constexpr, ACTIVATION: tl.constexpr, GLU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tl.static_assert(BLOCK_K == GROUP_SIZE)
    tile_m, tile_n = tile_of_program(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = rows_of_tile(tile_m, M, BLOCK_M)
    weight_rows = weight_rows_of_tile(tile_n, N, BLOCK_N, GLU)
    UNIT: tl.constexpr = 1 / 16 if ACT_UNSIGNED else 1 / 256  # a nibble at the top of its byte is the code times 16
    y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for group in tl.range(K // GROUP_SIZE):
        x = load_tile(x_ptr, rows, K // 2, group * 32, K // 2, 32, False)
        weight = load_tile(weight_ptr, weight_rows, K // 2, group * 32, K // 2, 32, False)
        x_even, x_odd = unsigned_nibbles(x) if ACT_UNSIGNED else nibbles_at_top(x)
        weight_even, weight_odd = nibbles_at_top(weight)
        # The order of columns does not matter to a sum.
        total = tl.dot(x_even, weight_even.T, out_dtype=tl.int32)
        total = tl.dot(x_odd, weight_odd.T, total, out_dtype=tl.int32)
        ascales = widen(tl.load(ascales_ptr + group * padded_rows + rows))
        wscales = widen(tl.load(wscales_ptr + group * N + weight_rows)) * UNIT
        y += total.to(tl.float32) * (ascales[:, None] * wscales[None, :])
    finish(y, rows, weight_rows, tile_m, tile_n, M, N, operands, RANK, BLOCK_R, ACTIVATION, GLU)


def gemm_w4a4_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[GemmConfig]:
    """The tiles worth measuring; a step is one group."""
    if m <= 64:
        return [GemmConfig(64, n, 64, 8, 4, stages) for n in (64, 128) for stages in (3, 4, 5)]
    return [GemmConfig(128, n, 64, 8, 8, stages) for n in (64, 128) for stages in (3, 4, 5)]


def gemm_w4a4_default(m: int, n: int, k: int, capability: tuple[int, int]) -> GemmConfig:
    """The tile to start with; a pure function of the sizes and the GPU."""
    if INTERPRETED.value:  # whose time is the number of programs and of their steps
        return GemmConfig(64, 256, 64, 8, 4, 1)
    return GemmConfig(64, 64, 64, 8, 4, 4) if m <= 64 else GemmConfig(128, 128, 64, 8, 8, 4)


def gemm_w4a4(
    qx: Tensor, ascales: Tensor, qweight: Tensor, wscales: Tensor, low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None,
    act_unsigned: bool, out_dtype: torch.dtype, epilogue: Epilogue = Epilogue(),
) -> Tensor:  # fmt: skip
    m, (n, rank), k = qx.shape[0], proj_up.shape, 2 * qx.shape[1]
    kind = f"{'unsigned' if act_unsigned else 'signed'}-{dtype_name(out_dtype)}"
    config = epilogue.tile(config_for("gemm_w4a4", qx.device, kind, m, n, k, gemm_w4a4_default, gemm_w4a4_configs), n)
    operands = epilogue_operands(low_rank_act, proj_up, bias, out_dtype, epilogue, config)
    if operands.is_empty:
        return operands.out
    gemm_w4a4_kernel[config.grid(m, n)](
        qx.contiguous(), ascales.contiguous(), qweight.contiguous(), wscales.contiguous(), operands, m, n, ascales.shape[1],
        K=k, ACT_UNSIGNED=act_unsigned, **epilogue_constants(rank, epilogue), **vars(config),
    )  # fmt: skip
    return operands.outputs(m, out_dtype)


gemm_w4a4_act, gemm_w4a4_act_quantize, gemm_w4a4_gate_residual = fused_ops(gemm_w4a4, 9)
