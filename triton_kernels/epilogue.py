"""What follows the sums of a matrix product before they are stored: low-rank branch, bias, activation, gate and residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .low_rank import add_low_rank, low_rank_block
from .numbers import round_to, widen


@dataclass(frozen=True)
class Epilogue:
    """What the op's name adds to the product; see `halfbyte.ops.epilogues`."""

    activation: str = "none"
    glu: str = "none"
    gate: Tensor | None = None
    residual: Tensor | None = None

    def width(self, n: int) -> int:
        return n if self.glu == "none" else n // 2


class EpilogueOperands(NamedTuple):
    """low_rank_act [M, R], proj_up [N, R], bias [N], gate [M / rows_per_gate, N], residual [M, N]; out [M, N] or [M, N/2]."""

    low_rank_act: Tensor | None
    proj_up: Tensor | None
    bias: Tensor | None
    gate: Tensor | None
    residual: Tensor | None
    out: Tensor
    rows_per_gate: int

    @property
    def has_float32(self) -> bool:
        floats = (self.low_rank_act, self.gate, self.residual, self.out)
        return any(tensor is not None and tensor.dtype == torch.float32 for tensor in floats)


def epilogue_operands(
    low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None, out_dtype: torch.dtype, epilogue: Epilogue
) -> EpilogueOperands:
    """The operands, dense, with a fresh output."""
    m, n = low_rank_act.shape[0], proj_up.shape[0]
    out = torch.empty(m, epilogue.width(n), dtype=out_dtype, device=low_rank_act.device)
    branch = (low_rank_act, proj_up) if proj_up.shape[1] else (None, None)
    dense = (None if tensor is None else tensor.contiguous() for tensor in (*branch, bias, epilogue.gate, epilogue.residual))
    return EpilogueOperands(*dense, out, 1 if epilogue.gate is None else m // epilogue.gate.shape[0])


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def epilogue_constants(rank: int, epilogue: Epilogue) -> dict[str, int | str]:
    return {"RANK": rank, "BLOCK_R": low_rank_block(rank), "ACTIVATION": epilogue.activation, "GLU": epilogue.glu}


@triton.jit
def activate(y, ACTIVATION: tl.constexpr):
    if ACTIVATION == "gelu_erf":
        return 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":  # (1 + tanh(u)) / 2 is sigmoid(2u)
        return y * tl.sigmoid(1.5957691216057308 * (y + 0.044715 * y * y * y))
    elif ACTIVATION == "silu":
        return y * tl.sigmoid(y)
    else:
        tl.static_assert(ACTIVATION == "none")
        return y


@triton.jit
def finish(
    y, rows, weight_rows, tile_m, tile_n, M, N, operands, RANK: tl.constexpr, BLOCK_R: tl.constexpr, ACTIVATION: tl.constexpr,
    GLU: tl.constexpr,
):  # fmt: skip
    """Complete the float32 product of a tile and store what the op makes of it."""
    if RANK:
        y = add_low_rank(y, operands.low_rank_act, operands.proj_up, rows, weight_rows, M, N, RANK, BLOCK_R)
    if operands.bias is not None:
        y += widen(tl.load(operands.bias + weight_rows))[None, :]
    if GLU == "none":
        store(y, None, tile_m, tile_n * y.shape[1], M, N, operands, ACTIVATION)
    else:
        first, second = halves(y)
        if GLU == "value_first":
            store(first, second, tile_m, tile_n * first.shape[1], M, N // 2, operands, ACTIVATION)
        else:
            tl.static_assert(GLU == "gate_first")
            store(second, first, tile_m, tile_n * first.shape[1], M, N // 2, operands, ACTIVATION)


@triton.jit
def halves(y):
    """The left and the right columns, which lie in the same threads."""
    return tl.split(y.reshape(y.shape[0], 2, y.shape[1] // 2).permute(0, 2, 1))


@triton.jit
def store(y, gates, tile_m, first_column, M, WIDTH, operands, ACTIVATION: tl.constexpr):
    """activation(y), or y * activation(gates) where the unit is gated. WIDTH: columns of the output."""
    if y.shape[1] > 64:  # in parts, so that registers hold addresses, residual and activation of few columns at a time
        left, right = halves(y)
        left_gates, right_gates = None, None
        if gates is not None:
            left_gates, right_gates = halves(gates)
        store(left, left_gates, tile_m, first_column, M, WIDTH, operands, ACTIVATION)
        store(right, right_gates, tile_m, first_column + y.shape[1] // 2, M, WIDTH, operands, ACTIVATION)
    else:
        y = activate(y, ACTIVATION) if gates is None else y * activate(gates, ACTIVATION)
        store_part(y, tile_m, first_column, M, WIDTH, operands)


@triton.jit
def store_part(y, tile_m, first_column, M, WIDTH, operands):
    rows = tile_m * y.shape[0] + tl.arange(0, y.shape[0])
    columns = first_column + tl.arange(0, y.shape[1])
    inside = (rows < M)[:, None] & (columns < WIDTH)[None, :]
    offsets = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    if operands.gate is not None:
        gate_rows = (rows // operands.rows_per_gate).to(tl.int64)
        y *= widen(tl.load(operands.gate + gate_rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0))
    if operands.residual is not None:
        y += widen(tl.load(operands.residual + offsets, mask=inside, other=0.0))
    tl.store(operands.out + offsets, round_to(y, operands.out.dtype.element_ty), mask=inside)
