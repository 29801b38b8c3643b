"""wgmma: products by a warpgroup; PTX ISA 9.7.15.

The sums are computed when the instruction is issued; their registers and the operands may not be touched until its group is
waited for, so nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .control_flow import BasicBlock
from .data_movement import vector
from .faults import LaneError
from .lanes import Active
from .matrix import ELEMENTS, fragment_a
from .register_watch import Multiplication
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import Array
from .waiting import Waiting
from .wgmma_operands import matrix_in_shared, sums_from_registers, sums_to_registers

WARPGROUP = 128
ROWS = 64
TYPES = {("s32", one, other) for one in ("s8", "u8") for other in ("s8", "u8")}
TYPES |= {("f32", one, other) for one in ("e4m3", "e5m2") for other in ("e4m3", "e5m2")}
TYPES |= {("f32", one, one) for one in ("f16", "bf16")}


@opcode("wgmma")
def wgmma(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    operation = modifiers.one_of("fence", "commit_group", "wait_group")
    if operation is None or not (modifiers.flag("sync") and modifiers.flag("aligned")):
        raise instruction.unsupported("wgmma.fence, .commit_group or .wait_group, .sync.aligned, needed")
    modifiers.done()
    watch, pending = machine.watch, int((*instruction.operands, "0")[0], 0)

    def step(active: Active) -> None:
        active.whole_warps(f"wgmma.{operation}")
        if operation == "wait_group":
            watch.wait(active.mask, pending, machine.shared.shadow)
        else:
            counter = watch.epoch if operation == "fence" else watch.committed
            np.add(counter, 1, out=counter, where=active.where)

    return step


def warpgroup_multiply_add(machine, block: BasicBlock):
    """wgmma.mma_async at the end of a block: it runs when all four warps of a warpgroup are here."""
    instruction = block.terminator
    multiply_add = decoded(machine, instruction)

    def take(active: Active) -> list[tuple[int, Array]]:
        active.whole_warps("wgmma")
        gathering = machine.warpgroups.setdefault(instruction.line, [])
        present = np.logical_or.reduce([active.mask, *(one.mask for one in gathering)])
        whole = present.reshape(-1, WARPGROUP).all(1)
        for warpgroup in np.flatnonzero(whole).tolist():
            multiply_add(slice(warpgroup * WARPGROUP, (warpgroup + 1) * WARPGROUP))
        going = whole.repeat(WARPGROUP)
        for one in list(gathering):
            machine.waits.wake(one, going)
        gathering[:] = [one for one in gathering if one.mask.any()]
        staying = active.mask & ~going
        if staying.any():
            gathering.append(Waiting(staying, block.next, instruction, lambda: " (the rest of their warpgroup is not there)"))
            machine.waits.add(gathering[-1])
        return [(block.next, active.mask & going)] if (active.mask & going).any() else []

    return take


def decoded(machine, instruction: Instruction) -> Callable[[slice], None]:
    """What the instruction does for the lanes of one warpgroup."""
    modifiers = Modifiers(instruction)
    for name in ("mma_async", "sync", "aligned"):
        if not modifiers.flag(name):
            raise instruction.unsupported("wgmma.mma_async.sync.aligned needed")
    shape = re.fullmatch(r"m64n(\d+)k(\d+)", modifiers.left.pop(0))
    saturates = modifiers.flag("satfinite")
    result, left, right = modifiers.types(3)
    columns, depth = (int(shape[1]), int(shape[2])) if shape else (0, 0)
    if (result, left, right) not in TYPES or depth * ELEMENTS[left].bits != 256 or columns % 8 or not 8 <= columns <= 256:
        raise instruction.unsupported("this shape and these types of wgmma are not known here")
    operands = instruction.operands
    names = vector(operands[0])
    if len(names) != columns // 2 or machine.threads % WARPGROUP:
        raise instruction.unsupported(f"{columns // 2} registers and whole warpgroups needed")
    in_registers = vector(operands[1]) if operands[1].startswith("{") else []
    targets = [machine.target(instruction, name, result) for name in names]
    sources = [machine.source(instruction, name, result) for name in names]
    a = [machine.source(instruction, name, "b32") for name in in_registers] or machine.source(instruction, operands[1], "b64")
    b = machine.source(instruction, operands[2], "b64")
    adds = machine.source(instruction, operands[3], "pred")
    sign, left_across, right_across = signs_of(instruction, operands[4:], left, bool(in_registers))

    def multiply_add(lanes: slice) -> None:
        chunks = []
        right_words, right_chunks = matrix_in_shared(machine, b[lanes], lanes.start, columns, right_across)
        chunks.append(right_chunks)
        if in_registers:
            fragments = fragment_a(np.stack([register[lanes] for register in a]), ELEMENTS[left]).reshape(ROWS, depth)
        else:
            words, left_chunks = matrix_in_shared(machine, a[lanes], lanes.start, ROWS, left_across)
            fragments = ELEMENTS[left].values(words)
            chunks.append(left_chunks)
        if adds[lanes].any() != adds[lanes].all():
            raise LaneError(lanes.start, "scale-d of wgmma differs within a warpgroup")
        begin(machine, instruction, lanes, shape.group(), set(names), set(in_registers), np.concatenate(chunks))
        sums = sign * (fragments @ ELEMENTS[right].values(right_words).T)
        if adds[lanes.start]:
            sums = sums + sums_from_registers(np.stack([register[lanes] for register in sources]))
        if result == "s32":
            sums = (np.clip(sums, -(2**31), 2**31 - 1) if saturates else sums).astype(np.int64).astype(np.int32)
        else:
            sums = sums.astype(np.float32)
        for target, row in zip(targets, sums_to_registers(sums)):
            target[lanes] = row

    return multiply_add


def signs_of(instruction: Instruction, immediates: tuple[str, ...], type: str, a_in_registers: bool) -> tuple[int, bool, bool]:
    """imm-scale-a times imm-scale-b, of floats, and whether rows of A and of B are neighbours, which those of 16 bits may be."""
    if type in ("s8", "u8"):
        expected = 0
    elif type in ("f16", "bf16"):
        expected = 3 if a_in_registers else 4
    else:
        expected = 2
    if len(immediates) != expected:
        raise instruction.unsupported(f"{expected} immediates after scale-d needed")
    across = [False, False, *(bool(int(one)) for one in immediates[2:])][-2:]
    return int(immediates[0]) * int(immediates[1]) if immediates else 1, *across


def begin(machine, instruction: Instruction, lanes: slice, shape: str, sums: set[str], factors: set[str], chunks: Array) -> None:
    watch = machine.watch
    mask = np.zeros(machine.lanes, bool)
    mask[lanes] = True
    epoch = int(watch.epoch[lanes].min())
    watch.begin(Multiplication(instruction, mask, watch.committed.copy(), epoch, shape, sums, factors, chunks), lanes)
    machine.shared.shadow.begin_read(chunks, lanes.start, "wgmma")
