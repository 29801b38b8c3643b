"""Instructions in which the threads of a warp exchange values; PTX ISA 9.7.9 (shfl), 9.7.13 (vote, match, redux, elect)."""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .lanes import WARP
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import DTYPES, Array


def members(machine, instruction: Instruction, operand: str):
    """A check that all lanes that a member mask names are here, each active lane among them."""
    source = machine.source(instruction, operand, "b32")
    lane_bits = np.uint32(1) << machine.special["%laneid"]

    def check(active) -> None:
        if active.full and (source == np.uint32(0xFFFFFFFF)).all():
            return
        present = np.where(active.mask, lane_bits, np.uint32(0)).reshape(-1, WARP).sum(1, dtype=np.uint32).repeat(WARP)
        missing = active.mask & (((source & ~present) != 0) | ((source & lane_bits) == 0))
        if missing.any():
            lane = int(np.argmax(missing))
            here = f"mask {int(source[lane]):#x}, but threads {int(present[lane]):#x} of its warp are here"
            raise LaneError(lane, f"divergent {instruction.opcode}: {here}")

    return check


@opcode("shfl")
def shuffle(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    mode = modifiers.one_of("up", "down", "bfly", "idx")
    if mode is None or not modifiers.flag("sync"):
        raise instruction.unsupported("shfl.sync needed")
    type = modifiers.type()
    names = [name.strip() for name in instruction.operands[0].split("|")]
    target = machine.target(instruction, names[0], type)
    inside = machine.target(instruction, names[1], "pred") if len(names) == 2 else None
    source = machine.source(instruction, instruction.operands[1], type)
    step_operand, clamp_operand = (machine.source(instruction, operand, "b32") for operand in instruction.operands[2:4])
    check = members(machine, instruction, instruction.operands[4])
    lane = machine.special["%laneid"].astype(np.int64)
    first_of_warp = np.arange(machine.lanes) - lane

    def step(active) -> None:
        check(active)
        distance = (step_operand & np.uint32(31)).astype(np.int64)
        clamp, segment = (clamp_operand & 31).astype(np.int64), (clamp_operand >> np.uint32(8) & 31).astype(np.int64)
        lowest, highest = lane & segment, (lane & segment) | (clamp & ~segment)
        of = {"up": lane - distance, "down": lane + distance, "bfly": lane ^ distance}.get(mode)
        of = lowest | (distance & ~segment) if of is None else of
        valid = of >= highest if mode == "up" else of <= highest
        of = np.where(valid, of, lane) + first_of_warp
        absent = active.mask & ~active.mask[of]
        if absent.any():
            reader = int(np.argmax(absent))
            raise LaneError(reader, f"shfl from lane {int(of[reader] - first_of_warp[reader])}, which is not here")
        np.copyto(target, source[of], where=active.where)
        if inside is not None:
            np.copyto(inside, valid, where=active.where)

    return step


@opcode("vote")
def vote(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    kind = modifiers.one_of("all", "any", "uni", "ballot")
    if kind is None or not modifiers.flag("sync"):
        raise instruction.unsupported("vote.sync needed")
    type = modifiers.type()
    target = machine.target(instruction, instruction.operands[0], type)
    operand = instruction.operands[1]
    source = machine.source(instruction, operand.lstrip("!"), "pred")
    mask = machine.source(instruction, instruction.operands[2], "b32")
    check = members(machine, instruction, instruction.operands[2])
    lane_bits = np.uint32(1) << machine.special["%laneid"]

    def step(active) -> None:
        check(active)
        value = ~source if operand.startswith("!") else source
        ballot = ballots(value & active.mask, lane_bits) & mask
        result = {"ballot": ballot, "any": ballot != 0, "all": ballot == mask, "uni": (ballot == 0) | (ballot == mask)}[kind]
        np.copyto(target, result, where=active.where)

    return step


def ballots(value: Array, lane_bits: Array) -> Array:
    """Of each lane's warp: the bits of the lanes where value holds."""
    return np.where(value, lane_bits, np.uint32(0)).reshape(-1, WARP).sum(1, dtype=np.uint32).repeat(WARP)


@opcode("activemask")
def active_mask(machine, instruction: Instruction) -> Step:
    target = machine.target(instruction, instruction.operands[0], Modifiers(instruction).type())
    lane_bits = np.uint32(1) << machine.special["%laneid"]
    return lambda active: np.copyto(target, ballots(active.mask, lane_bits), where=active.where)


@opcode("match")
def match(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    if not (modifiers.flag("any") and modifiers.flag("sync")):
        raise instruction.unsupported("match.any.sync needed")
    type = modifiers.type()
    target = machine.target(instruction, instruction.operands[0], "b32")
    source = machine.source(instruction, instruction.operands[1], type)
    check = members(machine, instruction, instruction.operands[2])

    def step(active) -> None:
        check(active)
        values, here = source.reshape(-1, WARP), active.mask.reshape(-1, WARP)
        same = (values[:, :, None] == values[:, None, :]) & here[:, None, :]
        np.copyto(
            target,
            (same * (np.uint32(1) << np.arange(WARP, dtype=np.uint32))).sum(2, dtype=np.uint32).ravel(),
            where=active.where,
        )

    return step


REDUCTIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@opcode("redux")
def reduce(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    name = modifiers.one_of(*REDUCTIONS)
    if name is None or not modifiers.flag("sync"):
        raise instruction.unsupported("redux.sync needed")
    type = modifiers.type()
    if type not in ("s32", "u32", "b32"):
        raise instruction.unsupported("redux of 32-bit integers needed")
    target = machine.target(instruction, instruction.operands[0], type)
    source = machine.source(instruction, instruction.operands[1], type)
    check = members(machine, instruction, instruction.operands[2])
    info = np.iinfo(DTYPES[type])
    neutral = {"min": info.max, "max": info.min, "and": ~DTYPES[type].type(0)}.get(name, 0)

    def step(active) -> None:
        check(active)
        values = np.where(active.mask, source, DTYPES[type].type(neutral)).reshape(-1, WARP)
        np.copyto(target, REDUCTIONS[name].reduce(values, axis=1).astype(DTYPES[type]).repeat(WARP), where=active.where)

    return step


@opcode("elect")
def elect(machine, instruction: Instruction) -> Step:
    """The lowest thread of the mask is chosen."""
    modifiers = Modifiers(instruction)
    modifiers.flag("sync")
    modifiers.done()
    names = [name.strip() for name in instruction.operands[0].split("|")]
    leader, chosen = machine.target(instruction, names[0], "b32"), machine.target(instruction, names[1], "pred")
    check = members(machine, instruction, instruction.operands[1])
    lane = machine.special["%laneid"]

    def step(active) -> None:
        check(active)
        first = np.where(active.mask, lane, np.uint32(WARP)).reshape(-1, WARP).min(1).repeat(WARP)
        np.copyto(leader, first, where=active.where)
        np.copyto(chosen, lane == first, where=active.where)

    return step


@opcode("setmaxnreg")
def share_of_registers(machine, instruction: Instruction) -> Step:
    """Registers are without number here, so only the number asked for and who asks are checked."""
    modifiers = Modifiers(instruction)
    direction, synchronous = modifiers.one_of("inc", "dec"), modifiers.flag("sync") and modifiers.flag("aligned")
    count = int(instruction.operands[0], 0)
    if direction is None or not synchronous or modifiers.type() != "u32" or count % 8 or not 24 <= count <= 256:
        raise instruction.unsupported("setmaxnreg.inc or .dec, .sync.aligned.u32, of 24 to 256 registers by eights needed")
    return lambda active: active.whole_warps("setmaxnreg")
