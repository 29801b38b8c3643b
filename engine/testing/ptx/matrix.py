"""ldmatrix and mma.sync; PTX ISA 9.7.14.5 (fragments and instructions) and 9.7.14.3 (block scaling).

In a fragment lane 4g + q holds row g (of A; column g of B and, for the sums, columns 2q and 2q + 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .data_movement import vector
from .machine import WARP
from .registry import Step, opcode
from .small_floats import TABLES
from .syntax import Instruction, Modifiers
from .values import Array

ROW_BYTES = 16


@opcode("ldmatrix")
def load_matrices(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    modifiers.flag("sync"), modifiers.flag("aligned")
    shape, transposes = modifiers.one_of("m8n8"), modifiers.flag("trans")
    count = int((modifiers.one_of("x1", "x2", "x4") or "x0")[1:])
    if shape is None or not count or not modifiers.one_of("shared", "shared::cta") or modifiers.type() != "b16":
        raise instruction.unsupported("ldmatrix of 8 by 8 b16 matrices in shared memory needed")
    targets = [machine.target(instruction, name, "b32") for name in vector(instruction.operands[0])]
    base, offset = machine.address(instruction, instruction.operands[1])
    # Lanes 8i to 8i + 7 hold the addresses of matrix i; those beyond the last matrix may hold anything.
    pointing = machine.special["%laneid"] < 8 * count

    def step(active) -> None:
        active.whole_warps("ldmatrix")
        lanes = np.flatnonzero(active.mask & pointing)
        first = machine.shared.locate(base[lanes] + offset, ROW_BYTES, lanes, False)
        words = machine.shared.words[4][(first // 4)[:, None] + np.arange(4)].reshape(-1, count, 8, 4)
        if transposes:
            elements = np.ascontiguousarray(words).view(np.uint16).reshape(-1, count, 8, 8)
            words = np.ascontiguousarray(elements.transpose(0, 1, 3, 2)).view(np.uint32)
        for index, target in enumerate(targets):
            target[active.lanes] = words[:, index].reshape(-1)

    return step


@dataclass(frozen=True)
class Element:
    """bits of one element, and how a register's words become float64 values along the last axis."""

    bits: int
    values: Callable[[Array], Array]


def nibbles(table: Array) -> Callable[[Array], Array]:
    pairs = np.stack([table[np.arange(256) & 15], table[np.arange(256) >> 4]], 1).astype(np.float64)
    return lambda words: pairs[words.view(np.uint8)].reshape(*words.shape[:-1], -1)


def bytes_by(table: Array) -> Callable[[Array], Array]:
    wide = table.astype(np.float64)
    return lambda words: wide[words.view(np.uint8)]


ELEMENTS = {
    "u4": Element(4, nibbles(np.arange(16))),
    "s4": Element(4, nibbles((np.arange(16) + 8) % 16 - 8)),
    "e2m1": Element(4, nibbles(TABLES["e2m1"])),
    "s8": Element(8, bytes_by(np.arange(256).astype(np.uint8).view(np.int8))),
    "u8": Element(8, bytes_by(np.arange(256))),
    "e4m3": Element(8, bytes_by(TABLES["e4m3"])),
    "e5m2": Element(8, bytes_by(TABLES["e5m2"])),
    "f16": Element(16, lambda words: words.view(np.float16).astype(np.float64)),
    "bf16": Element(
        16, lambda words: (words.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    ),
}
SHAPES = {16: "m16n8k16", 8: "m16n8k32", 4: "m16n8k64"}
SCALINGS = {
    ("mxf4nvf4", "scale_vec::4X", "ue4m3"): 4,
    ("mxf4nvf4", "scale_vec::2X", "ue8m0"): 2,
    ("mxf8f6f4", "scale_vec::1X", "ue8m0"): 1,
}


@opcode("mma")
def multiply_add(machine, instruction: Instruction) -> Step:
    """Products and sums in float64, which holds all of them exactly but for sums of very unlike floats; one rounding at the end.

    Integer sums wrap around. Tensor cores keep fewer bits of floating-point sums, so those compare within a limit only.
    """
    modifiers = Modifiers(instruction)
    if not (modifiers.flag("sync") and modifiers.flag("aligned")):
        raise instruction.unsupported("mma.sync.aligned needed")
    shape = next((modifier for modifier in instruction.modifiers if re.fullmatch(r"m\d+n\d+k\d+", modifier)), "")
    layout = [modifiers.flag(name) for name in (shape, "row", "col")]
    kind = modifiers.one_of("kind::mxf4nvf4", "kind::mxf8f6f4", "kind::f8f6f4")
    scaled, vector_size = modifiers.flag("block_scale"), modifiers.one_of("scale_vec::1X", "scale_vec::2X", "scale_vec::4X")
    saturates = modifiers.flag("satfinite")
    result, left, right, addend, *scale_type = modifiers.types(5 if scaled else 4)
    types_known = left in ELEMENTS and right in ELEMENTS and result == addend in (("s32",) if saturates else ("f32", "s32"))
    if not (all(layout) and types_known and SHAPES[ELEMENTS[left].bits] == shape and ELEMENTS[left].bits == ELEMENTS[right].bits):
        raise instruction.unsupported("this shape and these types of mma are not known here")
    operands = [[machine.source(instruction, name, "b32") for name in vector(operand)] for operand in instruction.operands[1:3]]
    targets = [machine.target(instruction, name, result) for name in vector(instruction.operands[0])]
    sums = [machine.source(instruction, name, result) for name in vector(instruction.operands[3])]
    scales = None
    if scaled:
        blocks = SCALINGS.get((str(kind).removeprefix("kind::"), vector_size or default_vector(kind), scale_type[0]))
        if blocks is None:
            raise instruction.unsupported("this block scaling is not known here")
        scales = BlockScales(machine, instruction, blocks, TABLES[scale_type[0]].astype(np.float64))

    def step(active) -> None:
        active.whole_warps("mma")
        lanes = active.lanes
        a = fragment_a(np.stack([register[lanes] for register in operands[0]]), ELEMENTS[left])
        b = fragment_b(np.stack([register[lanes] for register in operands[1]]), ELEMENTS[right])
        if scales is not None:
            a, b = scales.apply(a, b, lanes)
        with np.errstate(all="ignore"):
            products = (a @ b.transpose(0, 2, 1)).reshape(-1, 2, 8, 4, 2)
        for index, (target, addend_register) in enumerate(zip(targets, sums)):
            product = products[:, index >> 1, :, :, index & 1].reshape(-1)
            if result == "s32":
                total = product.astype(np.int64) + addend_register[lanes]
                target[lanes] = total.clip(-(2**31), 2**31 - 1) if saturates else total.astype(np.int32)
            else:
                target[lanes] = product + addend_register[lanes]

    return step


def default_vector(kind: str | None) -> str | None:
    return "scale_vec::1X" if kind == "kind::mxf8f6f4" else None


def fragment_a(registers: Array, element: Element) -> Array:
    """[4, lanes] words to [warps, 16, K]; registers: low and high rows, then the same of the upper half of K."""
    values = element.values(np.ascontiguousarray(registers)[..., None]).reshape(2, 2, -1, 8, 4 * 32 // element.bits)
    return values.transpose(2, 1, 3, 0, 4).reshape(values.shape[2], 16, -1)


def fragment_b(registers: Array, element: Element) -> Array:
    """[2, lanes] words to [warps, 8, K], columns of B as rows."""
    values = element.values(np.ascontiguousarray(registers)[..., None]).reshape(2, -1, 8, 4 * 32 // element.bits)
    return values.transpose(1, 2, 0, 3).reshape(values.shape[1], 8, -1)


class BlockScales:
    """Scales of blocks along K.

    Row r of A has those of lane 4(r % 8) + 2 thread_id + r / 8, column n of B those of lane 4n + thread_id. Ids are constants or
    registers, alike in all lanes.
    """

    def __init__(self, machine, instruction: Instruction, blocks: int, table: Array) -> None:
        scale_a, ids_a, scale_b, ids_b = instruction.operands[4:8]
        self.registers = [machine.source(instruction, name.strip("{}"), "b32") for name in (scale_a, scale_b)]
        self.ids = [machine.source(instruction, id, "u16") for ids in (ids_a, ids_b) for id in vector(ids)]
        self.instruction, self.blocks, self.table = instruction, blocks, table

    def apply(self, a: Array, b: Array, lanes: Array | slice) -> tuple[Array, Array]:
        byte_a, thread_a, byte_b, thread_b = (self.one(id[lanes]) for id in self.ids)
        row, column = np.arange(16), np.arange(8)
        owners = ((4 * (row % 8) + 2 * thread_a + row // 8, byte_a), (4 * column + thread_b, byte_b))
        scaled = []
        for matrix, register, (holders, first_byte) in zip((a, b), self.registers, owners):
            words = np.ascontiguousarray(register[lanes].reshape(-1, WARP)[:, holders])
            codes = words.view(np.uint8).reshape(*words.shape, 4)[:, :, first_byte : first_byte + self.blocks]
            scaled.append(matrix * self.table[codes].repeat(matrix.shape[-1] // self.blocks, axis=-1))
        return scaled[0], scaled[1]

    def one(self, ids: Array) -> int:
        if (ids != ids[0]).any():
            raise self.instruction.unsupported("one byte and thread id for all lanes needed")
        return int(ids[0])
