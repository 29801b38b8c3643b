"""Logic, shifts, bit fields and byte permutation; PTX ISA 9.7.1 and 9.7.8."""

from __future__ import annotations

import numpy as np

from .integer import compute
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import DTYPES, Array

LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}


@opcode(*LOGIC)
def logic(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    return compute(machine, instruction, [type] * len(instruction.operands), LOGIC[instruction.opcode])


@opcode("cnot")
def is_zero(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    return compute(machine, instruction, [type] * 2, lambda x: x == 0)


@opcode("shl", "shr")
def shift(machine, instruction: Instruction) -> Step:
    """Amounts of the type's width or more clear all bits, or leave those of the sign."""
    type = Modifiers(instruction).type()
    width, operation = 8 * DTYPES[type].itemsize, {"shl": np.left_shift, "shr": np.right_shift}[instruction.opcode]

    def function(x: Array, amount: Array) -> Array:
        small = np.minimum(amount, np.uint32(width - 1)).astype(x.dtype)
        result = operation(x, small)
        if (amount < width).all():
            return result
        gone = x >> x.dtype.type(width - 1) if x.dtype.kind == "i" and instruction.opcode == "shr" else np.zeros_like(x)
        return np.where(amount < width, result, gone)

    return compute(machine, instruction, [type, type, "u32"], function)


@opcode("shf")
def funnel_shift(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    direction, mode = modifiers.one_of("l", "r"), modifiers.one_of("wrap", "clamp")
    type = modifiers.type()
    if direction is None or mode is None or type != "b32":
        raise instruction.unsupported("shf.l or .r, .wrap or .clamp, of .b32 needed")

    def function(low: Array, high: Array, amount: Array) -> Array:
        amount = (amount & np.uint32(31) if mode == "wrap" else np.minimum(amount, np.uint32(32))).astype(np.uint64)
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        return (both << amount) >> np.uint64(32) if direction == "l" else both >> amount

    return compute(machine, instruction, ["b32", "b32", "b32", "u32"], function)


@opcode("bfe")
def extract_field(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    wide = np.int64 if type[0] == "s" else np.uint64

    def function(x: Array, position: Array, length: Array) -> Array:
        position, length = position & np.uint32(255), length & np.uint32(255)
        moved = x.astype(wide) >> np.minimum(position, np.uint32(63)).astype(wide)
        if type[0] != "s":
            moved = np.where(position < 64, moved, wide(0))
        unused = np.uint32(64) - np.clip(length, np.uint32(1), np.uint32(64))
        kept = (moved << unused.astype(wide)) >> unused.astype(wide)
        return np.where(length == 0, wide(0), kept)

    return compute(machine, instruction, [type, type, "u32", "u32"], function)


@opcode("bfi")
def insert_field(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()

    def function(field: Array, x: Array, position: Array, length: Array) -> Array:
        position, length = position & np.uint32(255), length & np.uint32(255)
        used = np.uint64(2**64 - 1) >> (np.uint64(64) - np.clip(length, np.uint32(1), np.uint32(64)).astype(np.uint64))
        used = np.where((length == 0) | (position >= 64), np.uint64(0), used)
        at = np.minimum(position, np.uint32(63)).astype(np.uint64)
        mask = used << at
        return ((field.astype(np.uint64) << at) & mask) | (x & ~mask)

    return compute(machine, instruction, [type, type, type, "u32", "u32"], function)


@opcode("lop3")
def logic_of_3(machine, instruction: Instruction) -> Step:
    """The last operand is the truth table: bit 4a + 2b + c."""
    type = Modifiers(instruction).type()
    table = int(instruction.operands[4], 0)
    lookup = Instruction(instruction.line, instruction.text, "lop3", (type,), instruction.operands[:4])

    def function(a: Array, b: Array, c: Array) -> Array:
        result = np.zeros_like(a)
        for index in range(8):
            if table >> index & 1:
                result |= (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
        return result

    return compute(machine, lookup, [type] * 4, function)


@opcode("prmt")
def permute_bytes(machine, instruction: Instruction) -> Step:
    """Each of four selectors of 4 bits picks one of eight bytes, or with its top bit the byte's sign."""
    type = Modifiers(instruction).type()

    def function(a: Array, b: Array, selectors: Array) -> Array:
        both = (b.astype(np.uint64) << np.uint64(32)) | a
        result = np.zeros_like(a)
        for index in range(4):
            selector = (selectors >> np.uint32(4 * index)) & np.uint32(15)
            byte = ((both >> ((selector & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
            sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            result |= np.where(selector & np.uint32(8), sign, byte) << np.uint32(8 * index)
        return result

    return compute(machine, instruction, [type, type, type, "b32"], function)


@opcode("popc", "clz", "brev", "bfind")
def count_bits(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    shift_amount = modifiers.flag("shiftamt")
    type = modifiers.type()
    width = 8 * DTYPES[type].itemsize
    if instruction.opcode == "bfind" and (shift_amount or type[0] == "s"):
        raise instruction.unsupported("bfind of an unsigned type without .shiftamt needed")

    def function(x: Array) -> Array:
        bits = np.unpackbits(np.ascontiguousarray(x).view(np.uint8).reshape(-1, width // 8), axis=1, bitorder="little")
        if instruction.opcode == "popc":
            return bits.sum(1)
        if instruction.opcode == "brev":
            return np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(f"u{width // 8}")[:, 0]
        leading = np.where(bits.any(1), bits[:, ::-1].argmax(1), width)
        return leading if instruction.opcode == "clz" else width - 1 - leading

    return compute(machine, instruction, [type if instruction.opcode == "brev" else "u32", type], function)
