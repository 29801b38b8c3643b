"""Integer arithmetic; PTX ISA 9.7.1. Registers wrap around as numpy's arrays do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import DTYPES, Array

WIDER = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def compute(machine, instruction: Instruction, types: list[str], function: Callable[..., Array]) -> Step:
    """A step that writes function(sources) as types[0]; types[1:] are those of the sources."""
    target = machine.target(instruction, instruction.operands[0], types[0])
    sources = [
        machine.source(instruction, operand, type) for operand, type in zip(instruction.operands[1:], types[1:], strict=True)
    ]

    def step(active) -> None:
        np.copyto(target, function(*sources), where=active.where, casting="unsafe")

    return step


def integer(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    """add, sub, min, max, neg, abs, div, rem of an integer type."""
    saturates = modifiers.flag("sat")
    type = modifiers.type()
    function = FUNCTIONS[instruction.opcode]
    if type in ("s16x2", "u16x2"):
        raise instruction.unsupported("packed 16-bit integers are not known here")
    if saturates:
        if type != "s32":
            raise instruction.unsupported(".sat of .s32 needed")
        wide = function
        function = lambda x, y: np.clip(wide(x.astype(np.int64), y.astype(np.int64)), -(2**31), 2**31 - 1)  # noqa: E731
    return compute(machine, instruction, [type] * len(instruction.operands), function)


def truncated_quotient(x: Array, y: Array) -> Array:
    """Rounded to zero; division by zero gives all ones, as on a GPU."""
    safe = np.where(y == 0, y.dtype.type(1), y)
    if x.dtype.kind == "u":
        return np.where(y == 0, ~x.dtype.type(0), x // safe)
    quotient = x // safe
    quotient += ((x - quotient * safe) != 0) & ((x < 0) != (safe < 0))
    return np.where(y == 0, x.dtype.type(-1), quotient)


def remainder(x: Array, y: Array) -> Array:
    return np.where(y == 0, x, x - truncated_quotient(x, y) * y)


def multiply(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    """mul and mad of integers: .lo, .hi or .wide."""
    part = modifiers.one_of("lo", "hi", "wide")
    type = modifiers.type()
    if part is None:
        raise instruction.unsupported(".lo, .hi or .wide needed")
    wide = WIDER.get(type)
    result = wide if part == "wide" else type
    if part == "lo":
        product = np.multiply
    elif part == "wide":
        product = lambda x, y: np.multiply(x, y, dtype=DTYPES[wide])  # noqa: E731
    else:
        product = (lambda x, y: upper_half(x, y, DTYPES[wide])) if wide else upper_64
    if instruction.opcode == "mul":
        return compute(machine, instruction, [result, type, type], product)
    return compute(machine, instruction, [result, type, type, result], lambda x, y, z: product(x, y) + z)


def upper_half(x: Array, y: Array, wide: np.dtype) -> Array:
    bits = 8 * x.dtype.itemsize
    return (np.multiply(x, y, dtype=wide) >> wide.type(bits)).astype(x.dtype)


def upper_64(x: Array, y: Array) -> Array:
    """The upper 64 of 128 bits, from four products of 32-bit halves."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b = x.astype(np.uint64), y.astype(np.uint64)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    upper = a1 * b1 + (middle >> half) + ((middle & mask) + a0 * b1 >> half)
    if x.dtype.kind == "i":
        upper = upper - np.where(x < 0, b, np.uint64(0)) - np.where(y < 0, a, np.uint64(0))
    return upper.view(x.dtype)


FUNCTIONS = {
    "add": np.add,
    "sub": np.subtract,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
    "div": truncated_quotient,
    "rem": remainder,
}


@opcode("sad")
def sum_of_absolute_difference(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    return compute(machine, instruction, [type] * 4, lambda x, y, z: np.where(x > y, x - y, y - x) + z)


@opcode("dp4a")
def dot_of_4(machine, instruction: Instruction) -> Step:
    """Four products of bytes, added to a 32-bit sum."""
    left, right = Modifiers(instruction).types(2)
    of_bytes = {"s32": np.int8, "u32": np.uint8}
    sum_type = "s32" if "s32" in (left, right) else "u32"

    def dot(x: Array, y: Array, z: Array) -> Array:
        a = x.view(of_bytes[left]).reshape(-1, 4).astype(np.int64)
        b = y.view(of_bytes[right]).reshape(-1, 4).astype(np.int64)
        return ((a * b).sum(1) + z).astype(DTYPES[sum_type])

    return compute(machine, instruction, [sum_type, left, right, sum_type], dot)
