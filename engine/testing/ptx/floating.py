"""Floating-point instructions; PTX ISA 9.7.3 (f32, f64), 9.7.4 (f16, bf16)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .registry import Step
from .rounding import ROUNDINGS, canonical, directed_sum, exact_sum, flush, fma_f32, from_bf16, round_f32, to_bf16, to_f16, to_odd
from .syntax import Instruction, Modifiers
from .values import DTYPES, PACKED, Array

Compute = Callable[..., Array]


def elementwise(
    machine, instruction: Instruction, type: str, compute: Compute, flushes: bool = False, saturates: bool = False
) -> Step:
    """A step that computes one result from all sources. compute takes and gives float16, float32 or float64; bf16 as float32."""
    scalar = PACKED.get(type, type)
    lanes = DTYPES[type].itemsize // DTYPES[scalar].itemsize
    view = lambda array: array.view(DTYPES[scalar]) if lanes > 1 else array  # noqa: E731
    target = view(machine.target(instruction, instruction.operands[0], type))
    sources = [view(machine.source(instruction, operand, type)) for operand in instruction.operands[1:]]

    def step(active) -> None:
        values = [from_bf16(source) for source in sources] if scalar == "bf16" else sources
        if flushes:
            values = [flush(value) for value in values]
        result = compute(*values)
        if flushes:
            result = flush(result)
        if saturates:
            result = np.where(result > 0, np.minimum(result, result.dtype.type(1)), result.dtype.type(0))
        if scalar == "bf16":
            result = to_bf16(result.astype(np.float64))
        else:
            result = canonical(result)
        np.copyto(target, result, where=active.where if lanes == 1 or active.full else active.mask.repeat(lanes))

    return step


def floating(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    """add, sub, mul, div, fma, mad, min, max, neg, abs and the functions of one argument, of a float type."""
    rounding = modifiers.one_of(*ROUNDINGS) or "rn"
    approximate = modifiers.one_of("approx", "full") is not None
    flushes, saturates = modifiers.flag("ftz"), modifiers.flag("sat")
    propagates = modifiers.flag("NaN")
    type = modifiers.type()
    scalar = PACKED.get(type, type)
    name = instruction.opcode
    if name in ("min", "max"):
        compute = minimum_or_maximum(name, propagates)
    elif name in ("neg", "abs"):
        compute = {"neg": np.negative, "abs": np.abs}[name]
    elif name == "copysign":
        compute = lambda sign, magnitude: np.copysign(magnitude, sign)  # noqa: E731
    elif name in FUNCTIONS:
        compute = of_one_argument(FUNCTIONS[name])
    elif rounding == "rn" or approximate:
        compute = nearest(name, scalar)
    else:
        compute = directed(name, rounding) if scalar == "f32" else None
    if compute is None:
        raise instruction.unsupported(f"{name} of {scalar} rounded by {rounding} is not known here")
    if name in ("neg", "abs") and not flushes and scalar != "bf16":
        return sign_only(machine, instruction, type, compute)
    return elementwise(machine, instruction, type, compute, flushes, saturates)


def sign_only(machine, instruction: Instruction, type: str, compute: Compute) -> Step:
    """neg and abs change a sign bit, also that of a NaN."""
    scalar = PACKED.get(type, type)
    lanes = DTYPES[type].itemsize // DTYPES[scalar].itemsize
    target = machine.target(instruction, instruction.operands[0], type).view(DTYPES[scalar])
    source = machine.source(instruction, instruction.operands[1], type).view(DTYPES[scalar])

    def step(active) -> None:
        np.copyto(target, compute(source), where=active.where if lanes == 1 or active.full else active.mask.repeat(lanes))

    return step


def nearest(name: str, scalar: str) -> Compute | None:
    # numpy's float16 and a float32 in place of bf16 have more than twice the bits, so rounding twice is harmless.
    operations = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    if name in operations:
        return operations[name]
    if name in ("fma", "mad"):
        return {"f32": lambda x, y, z: fma_f32(x, y, z, "rn"), "f16": fma_f16, "bf16": fma_bf16}.get(scalar)
    return None


def fma_f16(x: Array, y: Array, z: Array) -> Array:
    product = np.multiply(x, y, dtype=np.float64)
    return to_f16(to_odd(*exact_sum(product, z.astype(np.float64))))


def fma_bf16(x: Array, y: Array, z: Array) -> Array:
    """As a float64 rounded to odd, for the one rounding to bf16 that follows."""
    product = np.multiply(x, y, dtype=np.float64)
    return to_odd(*exact_sum(product, z.astype(np.float64)))


def directed(name: str, rounding: str) -> Compute | None:
    def sum_of(x: Array, y: Array) -> Array:
        return directed_sum(x.astype(np.float64), y.astype(np.float64), rounding)

    return {
        "add": sum_of,
        "sub": lambda x, y: sum_of(x, -y),
        "mul": lambda x, y: round_f32(np.multiply(x, y, dtype=np.float64), 0.0, rounding),
        "fma": lambda x, y, z: fma_f32(x, y, z, rounding),
    }.get(name)


def minimum_or_maximum(name: str, propagates: bool) -> Compute:
    """The number where one operand is NaN, or NaN with .NaN; -0 is below +0."""
    pick = {"min": np.fmin, "max": np.fmax} if not propagates else {"min": np.minimum, "max": np.maximum}

    def two(x: Array, y: Array) -> Array:
        result = pick[name](x, y)
        zeros = (x == 0) & (y == 0)
        if zeros.any():
            negative = np.signbit(x) | np.signbit(y) if name == "min" else np.signbit(x) & np.signbit(y)
            result = np.where(zeros, np.copysign(np.zeros_like(x), np.where(negative, -1, 1).astype(x.dtype)), result)
        return result

    return lambda x, y, *more: two(two(x, y), *more) if more else two(x, y)


def of_one_argument(function: Callable[[Array], Array]) -> Compute:
    """In float64, then rounded: exact for sqrt and rcp (twice the bits), nearer than a GPU for what is approximate there."""
    return lambda x: function(x.astype(np.float64)).astype(x.dtype)


FUNCTIONS = {
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
