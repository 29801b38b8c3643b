"""Small adversarial calls of the compiled kernels: ragged tiles, tails of K, odd ranks, every epilogue. For tests and mutations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ops import OPS, quantize_act
from .calls import outputs_as_floats
from .inputs import Inputs
from .limits import LIMITS, relative_rms

HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


@dataclass(frozen=True)
class KernelCall:
    """id: readable. args: of the op."""

    op: str
    id: str
    args: tuple

    def wanted(self) -> Any:
        return OPS[self.op].reference(*self.args)

    def reason_against(self, got: Any, wanted: Any) -> str | None:
        """One sentence why an output is not the reference's, or None."""
        wanted = outputs_as_floats(self.op, self.args, wanted)
        for name, (tensor, format) in outputs_as_floats(self.op, self.args, got).items():
            if (error := relative_rms(tensor, wanted[name][0])) > (limit := LIMITS[format].agreement):
                return f"{name}: relative RMS error {error:.3g} is over the {format} limit {limit:.3g}"
        return None


def with_poisoned_padding(ascales: Tensor, rows: int) -> Tensor:
    """The scales of rows beyond the last token are there to be read, and must count for nothing."""
    ascales = ascales.clone()
    ascales[:, rows:] = float("nan")
    return ascales


def product(op: str, dtype: torch.dtype, m: int, n: int, k: int, rank: int, bias: bool = True, **options) -> tuple:
    """Arguments of gemm_w4a4 or gemm_w8a8; options: out_dtype, unsigned, segments, fp8."""
    inputs = Inputs(dtype, seed=m + n + k)
    format = "int4" if op == "gemm_w4a4" else "fp8" if options.get("fp8") else "int8"
    unsigned = options.get("unsigned", False)
    x = inputs.normal(m, k).abs() if unsigned else inputs.normal(m, k)
    qx, ascales, _ = quantize_act.reference(x, None, None, format, unsigned=unsigned, segments=options.get("segments", 1))
    flags = (unsigned,) if op == "gemm_w4a4" else ()
    weight, companions = inputs.weight(n, k, format), inputs.companions(m, n, rank, bias)
    return qx, with_poisoned_padding(ascales, m), *weight, *companions, *flags, options.get("out_dtype", FLOAT)


def act_and_residual_calls(op: str) -> Iterator[KernelCall]:
    for activation, glu, m, n in (
        ("gelu_erf", "none", 70, 72),
        ("gelu_tanh", "value_first", 77, 80),
        ("silu", "gate_first", 130, 272),
        ("none", "value_first", 300, 144),
    ):
        dtype = HALF if m < 128 else BFLOAT
        yield KernelCall(f"{op}_act", f"{activation}_{glu}_{m}x{n}", (*product(op, dtype, m, n, 192, 16), activation, glu))
    for dtype, batch, m, n in ((HALF, None, 66, 72), (BFLOAT, 3, 66, 136), (HALF, 2, 300, 136)):
        inputs = Inputs(dtype, seed=m)
        gate = None if batch is None else inputs.normal(batch, n)
        args = (*product(op, dtype, m, n, 192, 16), gate, inputs.normal(m, n))
        yield KernelCall(f"{op}_gate_residual", f"gates_{batch}_{m}x{n}", args)


def gemm_w4a4_calls() -> Iterator[KernelCall]:
    op = "gemm_w4a4"
    yield KernelCall(op, "small_tile", product(op, HALF, 77, 136, 320, 48))
    yield KernelCall(op, "large_tile", product(op, BFLOAT, 300, 136, 320, 48))
    yield KernelCall(op, "no_rank_no_bias", product(op, BFLOAT, 65, 72, 64, 0, bias=False))
    yield KernelCall(op, "unsigned_small", product(op, BFLOAT, 100, 72, 128, 8, unsigned=True, out_dtype=BFLOAT))
    yield KernelCall(op, "unsigned_large", product(op, HALF, 130, 8, 704, 40, unsigned=True, out_dtype=HALF))
    yield KernelCall(op, "one_row", product(op, HALF, 1, 64, 1024, 16, out_dtype=HALF))
    yield KernelCall(op, "two_bands", product(op, BFLOAT, 2100, 136, 64, 0))
    yield from act_and_residual_calls(op)


def gemm_w8a8_calls() -> Iterator[KernelCall]:
    op = "gemm_w8a8"
    yield KernelCall(op, "small_tile", product(op, HALF, 77, 136, 208, 48))
    yield KernelCall(op, "large_tile", product(op, BFLOAT, 300, 136, 208, 48))
    yield KernelCall(op, "segments", product(op, BFLOAT, 137, 136, 384, 16, segments=3))
    yield KernelCall(op, "fp8_segments", product(op, HALF, 137, 72, 256, 16, segments=2, fp8=True))
    yield KernelCall(op, "fp8_small", product(op, HALF, 100, 72, 144, 8, fp8=True, out_dtype=HALF))
    yield KernelCall(op, "fp8_large", product(op, BFLOAT, 130, 8, 704, 40, fp8=True, out_dtype=BFLOAT))
    yield KernelCall(op, "no_rank_no_bias", product(op, BFLOAT, 65, 72, 64, 0, bias=False))
    yield KernelCall(op, "one_row", product(op, HALF, 1, 64, 1024, 16, out_dtype=HALF))
    yield KernelCall(op, "two_bands", product(op, BFLOAT, 2100, 136, 64, 0))
    yield from act_and_residual_calls(op)


# Kernel file of csrc/cuda -> its calls.
KERNEL_CALLS = {"sm80_gemm_w4a4": gemm_w4a4_calls, "sm80_gemm_w8a8": gemm_w8a8_calls}
