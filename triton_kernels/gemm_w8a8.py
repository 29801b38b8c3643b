"""The INT8 and E4M3 products: sums of 8-bit codes on tensor cores, one scale per output channel and per token or K-segment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .epilogue import Epilogue, dtype_name, epilogue_constants, epilogue_operands, finish
from .fused_ops import fused_ops
from .gemm_tiles import GemmConfig, load_tile, rows_of_tile, tile_of_program, weight_rows_of_tile
from .numbers import INTERPRETED
from .tuning import capability_of, config_for, stages_of


DATACENTRE = ((8, 0), (9, 0), (10, 0), (10, 3))
WITH_DESCRIPTORS = (9, 10)
# Before sm_100 tensor cores keep 13 bits of an E4M3 sum and cut off the rest at every step.
MOST_E4M3_COLUMNS_PER_SUM = 1024


@dataclass(frozen=True)
class W8A8Config(GemmConfig):
    """PERSISTENT: as many programs as multiprocessors, each computing one tile after another."""

    PERSISTENT: bool = False


@triton.jit
def sum_of_codes(
    x, weight, rows, weight_rows, tile_m, tile_n, first, width, K: tl.constexpr, SUM: tl.constexpr,
    RAGGED_K: tl.constexpr, DESCRIPTORS: tl.constexpr, GLU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """x @ weight^T of the tile's rows and the columns [first, first + width)."""
    total = tl.zeros([BLOCK_M, BLOCK_N], SUM)
    for step in tl.range(0, width, BLOCK_K):
        k = first + step
        if DESCRIPTORS:
            x_codes = x.load([tile_m * BLOCK_M, k])
            if GLU == "none":
                weight_codes = weight.load([tile_n * BLOCK_N, k])
            else:
                weight_codes = weight.load([0, tile_n * (BLOCK_N // 2), k]).reshape(BLOCK_N, BLOCK_K)
        else:
            x_codes = load_tile(x, rows, K, k, first + width, BLOCK_K, RAGGED_K)
            weight_codes = load_tile(weight, weight_rows, K, k, first + width, BLOCK_K, RAGGED_K)
        total = tl.dot(x_codes, weight_codes.T, total, out_dtype=SUM)
    return total


@triton.jit
def compute_tile(
    program, x, ascales_ptr, weight, wscales_ptr, operands, M, N, padded_rows, width, K: tl.constexpr, WIDTH: tl.constexpr,
    SUMS_PER_SCALE: tl.constexpr, SUM: tl.constexpr, RAGGED_K: tl.constexpr, DESCRIPTORS: tl.constexpr,
    RANK: tl.constexpr, BLOCK_R: tl.constexpr, ACTIVATION: tl.constexpr, GLU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = tile_of_program(program, M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = rows_of_tile(tile_m, M, BLOCK_M)
    weight_rows = weight_rows_of_tile(tile_n, N, BLOCK_N, GLU)
    if WIDTH == K:
        total = sum_of_codes(
            x, weight, rows, weight_rows, tile_m, tile_n, 0, K, K, SUM, RAGGED_K, DESCRIPTORS, GLU, BLOCK_M, BLOCK_N, BLOCK_K
        )
        y = total.to(tl.float32) * tl.load(ascales_ptr + rows)[:, None]
    else:
        y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        # A width known at compile time would unroll all steps of a sum.
        for index in tl.range(K // WIDTH):
            total = sum_of_codes(
                x, weight, rows, weight_rows, tile_m, tile_n, index * width, width, K, SUM, RAGGED_K, DESCRIPTORS, GLU,
                BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
            y += total.to(tl.float32) * tl.load(ascales_ptr + index // SUMS_PER_SCALE * padded_rows + rows)[:, None]
    y *= tl.load(wscales_ptr + weight_rows)[None, :]
    finish(y, rows, weight_rows, tile_m, tile_n, M, N, operands, RANK, BLOCK_R, ACTIVATION, GLU)


@triton.jit(do_not_specialize=["M", "padded_rows"])
def gemm_w8a8_kernel(
    x, ascales_ptr, weight, wscales_ptr, operands, M, N, padded_rows, width, K: tl.constexpr, WIDTH: tl.constexpr,
    SUMS_PER_SCALE: tl.constexpr, SUM: tl.constexpr, RAGGED_K: tl.constexpr, DESCRIPTORS: tl.constexpr,
    RANK: tl.constexpr, BLOCK_R: tl.constexpr, ACTIVATION: tl.constexpr, GLU: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, PERSISTENT: tl.constexpr,
):  # fmt: skip
    """WIDTH: columns whose codes are added up before they are scaled; PERSISTENT: a program computes one tile after another."""
    first = tl.program_id(0)
    if PERSISTENT:
        tiles = tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N)
        # Flattened into one loop, the copies for the next tile run while this one is finished.
        for program in tl.range(first, tiles, tl.num_programs(0), flatten=True):
            compute_tile(
                program, x, ascales_ptr, weight, wscales_ptr, operands, M, N, padded_rows, width, K, WIDTH, SUMS_PER_SCALE, SUM,
                RAGGED_K, DESCRIPTORS, RANK, BLOCK_R, ACTIVATION, GLU, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M,
            )  # fmt: skip
    else:
        compute_tile(
            first, x, ascales_ptr, weight, wscales_ptr, operands, M, N, padded_rows, width, K, WIDTH, SUMS_PER_SCALE, SUM,
            RAGGED_K, DESCRIPTORS, RANK, BLOCK_R, ACTIVATION, GLU, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M,
        )  # fmt: skip


def gemm_w8a8_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[W8A8Config]:
    """The tiles worth measuring. sm_86, sm_89 and sm_120 have 99 KiB of shared memory a block, the others 163 and more."""
    if m <= 64:
        return [W8A8Config(64, columns, 128, 8, 4, stages) for columns in (64, 128) for stages in (3, 4)]
    if capability not in DATACENTRE:
        steps = ((64, 3), (64, 4), (128, 3))
        return [W8A8Config(128, 128, step, 8, warps, stages) for step, stages in steps for warps in (4, 8)]
    square = [W8A8Config(128, 128, 128, 8, warps, stages) for warps in (4, 8) for stages in (3, 4)]
    if capability != (9, 0):
        return square
    tiles = ((128, 256, 4, 4), (128, 256, 8, 4), (128, 256, 16, 4), (128, 256, 8, 3), (256, 128, 8, 4))
    large = [W8A8Config(*tile[:2], 128, tile[2], 8, tile[3], persistent) for tile in tiles for persistent in (False, True)]
    return [*square, W8A8Config(128, 128, 256, 8, 8, 3), *large]


def gemm_w8a8_default(m: int, n: int, k: int, capability: tuple[int, int]) -> W8A8Config:
    """The tile to start with; a pure function of the sizes and the GPU."""
    if INTERPRETED.value:  # whose time is the number of programs and of their steps
        return W8A8Config(64, 256, 256, 8, 4, 1)
    if m <= 64:
        return W8A8Config(64, 64, 128, 8, 4, 4)
    if capability == (9, 0) and triton.cdiv(m, 128) * triton.cdiv(n, 256) >= 96:
        return W8A8Config(128, 256, 128, 8, 8, 4, PERSISTENT=True)
    return W8A8Config(128, 128, 128, 8, 8, 3) if capability in DATACENTRE else W8A8Config(128, 128, 64, 8, 8, 4)


def narrowed(config: W8A8Config) -> W8A8Config:
    return replace(config, BLOCK_N=min(config.BLOCK_N, 128), PERSISTENT=False)


def gemm_w8a8_narrow_configs(m: int, n: int, k: int, capability: tuple[int, int]) -> list[W8A8Config]:
    return list(dict.fromkeys(map(narrowed, gemm_w8a8_configs(m, n, k, capability))))


def gemm_w8a8_narrow_default(m: int, n: int, k: int, capability: tuple[int, int]) -> W8A8Config:
    """For sums that are rescaled, since they and their float32 total both take registers, and for epilogues that take them."""
    return narrowed(gemm_w8a8_default(m, n, k, capability))


def programs_of(config: W8A8Config, m: int, n: int, device: torch.device) -> int:
    (tiles,) = config.grid(m, n)
    if not config.PERSISTENT or device.type != "cuda":
        return tiles
    return min(tiles, torch.cuda.get_device_properties(device).multi_processor_count)


def columns_per_sum(k: int, segments: int, is_e4m3: bool, capability: tuple[int, int]) -> int:
    """The longest equal parts of K whose codes may be added up without a scale and without losing bits."""
    width = k // segments
    if not is_e4m3 or capability[0] == 10 or width <= MOST_E4M3_COLUMNS_PER_SUM or width % 128:
        return width
    steps = width // 128
    most = MOST_E4M3_COLUMNS_PER_SUM // 128
    return 128 * max(divisor for divisor in range(1, most + 1) if steps % divisor == 0)


def descriptors(qx: Tensor, qweight: Tensor, config: GemmConfig, glu: str) -> tuple[TensorDescriptor, TensorDescriptor]:
    """Host-made, so they travel with the launch: a captured graph keeps them and nothing is allocated."""
    n, k = qweight.shape
    x = TensorDescriptor.from_tensor(qx, [config.BLOCK_M, config.BLOCK_K])
    if glu == "none":
        return x, TensorDescriptor.from_tensor(qweight, [config.BLOCK_N, config.BLOCK_K])
    both_halves = [2, n // 2, k], [n // 2 * k, k, 1], [2, config.BLOCK_N // 2, config.BLOCK_K]
    return x, TensorDescriptor(qweight, *both_halves)


def gemm_w8a8(
    qx: Tensor, ascales: Tensor, qweight: Tensor, wscales: Tensor, low_rank_act: Tensor, proj_up: Tensor, bias: Tensor | None,
    out_dtype: torch.dtype, epilogue: Epilogue = Epilogue(),
) -> Tensor:  # fmt: skip
    (m, k), (n, rank), segments = qx.shape, proj_up.shape, ascales.shape[0]
    is_e4m3, capability = qx.dtype == torch.float8_e4m3fn, capability_of(qx.device)
    width = columns_per_sum(k, segments, is_e4m3, capability)
    kind = f"{'e4m3' if is_e4m3 else 'int8'}-{dtype_name(out_dtype)}"
    if width < k or epilogue.takes_registers(low_rank_act, out_dtype):
        kind, default, configs = f"{kind}-narrow", gemm_w8a8_narrow_default, gemm_w8a8_narrow_configs
    else:
        default, configs = gemm_w8a8_default, gemm_w8a8_configs
    config = epilogue.tile(config_for("gemm_w8a8", qx.device, kind, m, n, k, default, configs), n)
    operands = epilogue_operands(low_rank_act, proj_up, bias, out_dtype, epilogue, config)
    if operands.is_empty:
        return operands.out
    x, weight = qx.contiguous(), qweight.contiguous()
    aligned = k % 16 == 0 and x.data_ptr() % 16 == 0 and weight.data_ptr() % 16 == 0
    # A descriptor fills up with zeros beyond K, not beyond a segment.
    described = capability[0] in WITH_DESCRIPTORS and aligned and (width == k or width % config.BLOCK_K == 0)
    ragged = not described and width % config.BLOCK_K != 0
    stages = config.num_stages if described else stages_of(config.num_stages, capability)
    if described:
        x, weight = descriptors(x, weight, config, epilogue.glu)
    gemm_w8a8_kernel[programs_of(config, m, n, qx.device),](
        x, ascales.contiguous(), weight, wscales.contiguous(), operands, m, n, ascales.shape[1], width, K=k,
        WIDTH=width, SUMS_PER_SCALE=k // segments // width, SUM=tl.float32 if is_e4m3 else tl.int32,
        RAGGED_K=ragged, DESCRIPTORS=described, **epilogue_constants(rank, epilogue), **vars(config) | {"num_stages": stages},
    )  # fmt: skip
    return operands.outputs(m, out_dtype)


def gemm_w8a8_into(
    out: Tensor, qx: Tensor, ascales: Tensor, qweight: Tensor, wscales: Tensor, low_rank_act: Tensor, proj_up: Tensor,
    bias: Tensor | None, epilogue: Epilogue = Epilogue(),
) -> None:  # fmt: skip
    """`gemm_w8a8` written to out [M, N], whose rows may lie apart: columns of a wider output.

    Raises ValueError where out has another shape, or the elements of a row are not neighbours.
    """
    shape = (qx.shape[0], epilogue.width(qweight.shape[0]))
    if out.shape != shape or out.stride(1) != 1:
        got = f"{list(out.shape)} by strides {out.stride()}"
        raise ValueError(f"out: shape {list(shape)} and neighbours in a row needed, got {got}")
    gemm_w8a8(qx, ascales, qweight, wscales, low_rank_act, proj_up, bias, out.dtype, replace(epilogue, out=out))


gemm_w8a8_act, gemm_w8a8_act_quantize, gemm_w8a8_gate_residual = fused_ops(gemm_w8a8, 8)
