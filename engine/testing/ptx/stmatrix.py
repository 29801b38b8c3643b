"""stmatrix: 8 by 8 matrices from registers to shared memory; PTX ISA 9.7.14.5.16."""

from __future__ import annotations

import numpy as np

from .data_movement import vector
from .matrix import ROW_BYTES
from .registry import Step, opcode
from .syntax import Instruction, Modifiers


@opcode("stmatrix")
def store_matrices(machine, instruction: Instruction) -> Step:
    """Of matrix i, register i of lane 4g + q holds columns 2q and 2q + 1 of row g, and lane 8i + g the address of row g."""
    modifiers = Modifiers(instruction)
    modifiers.flag("sync"), modifiers.flag("aligned")
    shape, transposes = modifiers.one_of("m8n8"), modifiers.flag("trans")
    count = int((modifiers.one_of("x1", "x2", "x4") or "x0")[1:])
    if shape is None or not count or not modifiers.one_of("shared", "shared::cta") or modifiers.type() != "b16":
        raise instruction.unsupported("stmatrix of 8 by 8 b16 matrices to shared memory needed")
    base, offset = machine.address(instruction, instruction.operands[0])
    sources = [machine.source(instruction, name, "b32") for name in vector(instruction.operands[1])]
    pointing = machine.special["%laneid"] < 8 * count

    def step(active) -> None:
        active.whole_warps("stmatrix")
        lanes = np.flatnonzero(active.mask & pointing)
        first = machine.shared.locate(base[lanes] + offset, ROW_BYTES, lanes, True)
        words = np.stack([source[active.lanes] for source in sources]).reshape(count, -1, 8, 4).transpose(1, 0, 2, 3)
        if transposes:
            elements = np.ascontiguousarray(words).view(np.uint16).reshape(-1, count, 8, 8)
            words = np.ascontiguousarray(elements.transpose(0, 1, 3, 2)).view(np.uint32)
        machine.shared.words[4][(first // 4)[:, None] + np.arange(4)] = words.reshape(-1, 4)

    return step
