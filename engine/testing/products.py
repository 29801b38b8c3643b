"""Operands of the tiled products, and their comparison with the reference on the host shim."""

from __future__ import annotations

from typing import Any

import torch

from ..ops import OPS, use_backend
from .inputs import Inputs
from .limits import assert_close, format_name
from .schedules import SCHEDULES, schedule
from .shapes import Shape

FORMAT_OF = {"gemm_w4a4": "int4", "gemm_w8a8": "int8", "gemm_nvfp4": "nvfp4"}


def operands(
    name: str,
    shape: Shape,
    dtype: torch.dtype,
    rank: int = 32,
    bias: bool = True,
    segments: int = 1,
    format: str | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple:
    """The arguments of gemm_w4a4, gemm_w8a8 or gemm_nvfp4, in the op's own format unless one is given."""
    inputs = Inputs(dtype)
    format = format or FORMAT_OF[name]
    x = inputs.normal(shape.m, shape.k)
    qx, ascales, _ = OPS["quantize_act"].reference(x, None, None, format, segments=segments)
    flags = (False,) if name == "gemm_w4a4" else ()
    weight = inputs.weight(shape.n, shape.k, format)
    return (qx, ascales, *weight, *inputs.companions(shape.m, shape.n, rank, bias), *flags, out_dtype or dtype)


def check(name: str, args: tuple, *epilogue: Any) -> None:
    """Raise AssertionError unless the kernel's result agrees with the reference's."""
    with use_backend("simt"):
        got = OPS[name](*args, *epilogue)
    want = OPS[name].reference(*args, *epilogue)
    assert got.dtype == want.dtype
    assert_close(name, got, want, format_name(want.dtype))


def check_schedules(name: str, args: tuple) -> None:
    """Raise AssertionError unless every schedule gives the same bits, and the shim's fault where accesses race."""
    with use_backend("simt"):
        want = OPS[name](*args)
        for seed, run_to_barrier in SCHEDULES:
            with schedule(seed, run_to_barrier, races=True):
                assert torch.equal(OPS[name](*args), want)
