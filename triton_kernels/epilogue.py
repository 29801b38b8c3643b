"""What follows the sums of a matrix product: low-rank branch, bias, activation, gate and residual, or the next layer's codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gemm_tiles import GemmConfig
from .low_rank import add_low_rank, low_rank_block
from .next_layer import NextLayer, next_layer, quantize_tile
from .numbers import round_to, widen
from .one_launch import QuantizeArgs


@dataclass(frozen=True)
class Epilogue:
    """What the op's name adds to the product; see `halfbyte.ops.epilogues`. out: to write to, [M, N], its rows at any stride.

    next: the next layer's `quantize_act`, where `quantizes_in_tile`.
    """

    activation: str = "none"
    glu: str = "none"
    gate: Tensor | None = None
    residual: Tensor | None = None
    out: Tensor | None = None
    next: QuantizeArgs | None = None

    def width(self, n: int) -> int:
        return n if self.glu == "none" else n // 2

    def tile(self, config: GemmConfig, n: int) -> GemmConfig:
        """The configuration, its tiles as wide as they must be."""
        width = self.width(n)
        return config if self.next is None else config.holding(self.next.columns_of_scale(width) * n // width)

    def takes_registers(self, low_rank_act: Tensor, out_dtype: torch.dtype) -> bool:
        """Whether the largest tiles would spill: for float32 operands, and for what the next layer needs."""
        if self.next is not None and (self.next.format == "nvfp4" or self.next.rank > 32 or self.activation == "gelu_erf"):
            return True
        tensors = (low_rank_act, self.gate, self.residual)
        return torch.float32 in (out_dtype, *(tensor.dtype for tensor in tensors if tensor is not None))


class EpilogueOperands(NamedTuple):
    """low_rank_act [M, R], proj_up [N, R], bias [N], gate [M / rows_per_gate, N], residual [M, N]; out [M, N or N/2], or next."""

    low_rank_act: Tensor | None
    proj_up: Tensor | None
    bias: Tensor | None
    gate: Tensor | None
    residual: Tensor | None
    out: Tensor | None
    next: NextLayer | None
    rows_per_gate: int
    residual_stride: int
    out_stride: int

    @property
    def is_empty(self) -> bool:
        return self.out is not None and not self.out.numel()

    def outputs(self, m: int, out_dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """What the op returns, after the product's launch."""
        return self.out if self.next is None else self.next.outputs(m, out_dtype)


def epilogue_operands(
    low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None, out_dtype: torch.dtype, epilogue: Epilogue, config: GemmConfig
) -> EpilogueOperands:
    """The operands, dense but for rows of the residual and of an output that was given. config: the product's."""
    (m, rank), n, device = low_rank_act.shape, proj_up.shape[0], low_rank_act.device
    width, out, next = epilogue.width(n), epilogue.out, None
    if epilogue.next is not None:
        next = next_layer(m, width, triton.cdiv(n, config.BLOCK_N), out_dtype, device, epilogue.next)
    elif out is None:
        out = torch.empty(m, width, dtype=out_dtype, device=device)
    branch = (low_rank_act, proj_up) if rank else (None, None)
    dense = (None if tensor is None else tensor.contiguous() for tensor in (*branch, bias, epilogue.gate))
    residual = epilogue.residual
    if residual is not None and residual.stride(1) != 1:
        residual = residual.contiguous()
    rows_per_gate = 1 if epilogue.gate is None else m // epilogue.gate.shape[0]
    strides = (width if tensor is None else tensor.stride(0) for tensor in (residual, out))
    return EpilogueOperands(*dense, residual, out, next, rows_per_gate, *strides)


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
        store(y, None, tile_m, tile_n, M, N, operands, ACTIVATION)
    else:
        first, second = halves(y)
        if GLU == "value_first":
            store(first, second, tile_m, tile_n, M, N // 2, operands, ACTIVATION)
        else:
            tl.static_assert(GLU == "gate_first")
            store(second, first, tile_m, tile_n, M, N // 2, operands, ACTIVATION)


@triton.jit
def halves(y):
    """The left and the right columns, which lie in the same threads."""
    return tl.split(y.reshape(y.shape[0], 2, y.shape[1] // 2).permute(0, 2, 1))


@triton.jit
def store(y, gates, tile_m, tile_n, M, WIDTH, operands, ACTIVATION: tl.constexpr):
    """activation(y), or y * activation(gates) where the unit is gated. WIDTH: columns of the output."""
    if operands.out is not None:
        store_parts(y, gates, tile_m, tile_n * y.shape[1], M, WIDTH, operands, ACTIVATION)
    else:
        rows = tile_m * y.shape[0] + tl.arange(0, y.shape[0])
        parts = activated_parts(y, gates, operands.next.DTYPE, ACTIVATION, operands.next.PART)
        quantize_tile(parts, rows, tile_n, M, operands.next)


@triton.jit
def activated_parts(y, gates, dtype: tl.constexpr, ACTIVATION: tl.constexpr, PART: tl.constexpr):
    """`act` of the tile, rounded as its reference is, in parts of at most PART columns."""
    if y.shape[1] > PART:
        left, right = halves(y)
        left_gates, right_gates = None, None
        if gates is not None:
            left_gates, right_gates = halves(gates)
        left_parts = activated_parts(left, left_gates, dtype, ACTIVATION, PART)
        return left_parts + activated_parts(right, right_gates, dtype, ACTIVATION, PART)
    else:
        y = activate(y, ACTIVATION) if gates is None else y * activate(gates, ACTIVATION)
        return (round_to(y, dtype),)


@triton.jit
def store_parts(y, gates, tile_m, first_column, M, WIDTH, operands, ACTIVATION: tl.constexpr):
    if y.shape[1] > 64:  # in parts, so that registers hold addresses, residual and activation of few columns at a time
        left, right = halves(y)
        left_gates, right_gates = None, None
        if gates is not None:
            left_gates, right_gates = halves(gates)
        store_parts(left, left_gates, tile_m, first_column, M, WIDTH, operands, ACTIVATION)
        store_parts(right, right_gates, tile_m, first_column + y.shape[1] // 2, M, WIDTH, operands, ACTIVATION)
    else:
        y = activate(y, ACTIVATION) if gates is None else y * activate(gates, ACTIVATION)
        store_part(y, tile_m, first_column, M, WIDTH, operands)


@triton.jit
def store_part(y, tile_m, first_column, M, WIDTH, operands):
    rows = tile_m * y.shape[0] + tl.arange(0, y.shape[0])
    columns = first_column + tl.arange(0, y.shape[1])
    inside = (rows < M)[:, None] & (columns < WIDTH)[None, :]
    far_rows = rows.to(tl.int64)[:, None]
    if operands.gate is not None:
        gate_rows = (rows // operands.rows_per_gate).to(tl.int64)
        y *= widen(tl.load(operands.gate + gate_rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0))
    if operands.residual is not None:
        y += widen(tl.load(operands.residual + far_rows * operands.residual_stride + columns[None, :], mask=inside, other=0.0))
    pointers = operands.out + far_rows * operands.out_stride + columns[None, :]
    tl.store(pointers, round_to(y, operands.out.dtype.element_ty), mask=inside)
