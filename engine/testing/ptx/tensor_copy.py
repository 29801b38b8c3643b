"""cp.async.bulk.tensor: boxes of a tensor to shared memory and back; PTX ISA 9.7.9.26."""

from __future__ import annotations

import re

import numpy as np

from .bulk_copy import TO_GLOBAL, TO_SHARED, place, source_chunks
from .faults import LaneError
from .registry import Step
from .shadow import CHUNK
from .swizzle import swizzled
from .syntax import Instruction, Modifiers
from .tensor_map import BYTES, TensorMap, decode
from .values import Array

ALIGNMENT = 128


def tensor_copy(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    rank = next((int(one[0]) for one in modifiers.left if re.fullmatch(r"[1-5]d", one)), 0)
    modifiers.flag(f"{rank}d"), modifiers.flag("tile"), modifiers.flag("L2::cache_hint")
    load = "bulk_group" not in modifiers.left
    multicast = modifiers.flag("multicast::cluster")
    if not rank or tuple(modifiers.left) not in (TO_SHARED, ("shared::cta", *TO_SHARED[1:]), TO_GLOBAL):
        raise instruction.unsupported(f"a tile by .{'.'.join(TO_SHARED)} or .{'.'.join(TO_GLOBAL)} needed")
    box = Box(machine, instruction, instruction.operands[1 if load else 0], rank)
    return load_box(machine, instruction, box, multicast) if load else store_box(machine, instruction, box)


class Box:
    """The operand [map, {coordinates}]."""

    def __init__(self, machine, instruction: Instruction, operand: str, rank: int) -> None:
        parts = re.fullmatch(r"\[\s*([^,]+?)\s*,\s*\{([^}]*)\}\s*\]", operand)
        coordinates = [name.strip() for name in parts[2].split(",")] if parts else []
        if len(coordinates) != rank:
            raise instruction.unsupported(f"a tensor map and {rank} coordinates needed, got {operand}")
        self.machine = machine
        self.base, self.offset = machine.address(instruction, f"[{parts[1]}]")
        self.coordinates = [machine.source(instruction, name, "s32") for name in coordinates]

    def of(self, lane: int) -> tuple[TensorMap, tuple[int, ...]]:
        address = int(self.base[lane] + self.offset)
        memory = self.machine.memory
        if address % 64:
            raise LaneError(lane, f"a tensor map at {address:#x}, not a multiple of 64")
        try:
            map = decode(memory.bytes[memory.rows(np.array([address], np.uint64), BYTES, lane, False)].tobytes())
        except ValueError as error:
            raise LaneError(lane, f"{error} (at {address:#x})") from None
        if len(map.dims) != len(self.coordinates):
            raise LaneError(lane, f"{len(self.coordinates)} coordinates for a tensor map of {len(map.dims)} dimensions")
        return map, tuple(int(one[lane]) for one in self.coordinates)


def load_box(machine, instruction: Instruction, box: Box, multicast: bool) -> Step:
    operands = instruction.operands
    base, offset = machine.address(instruction, operands[0])
    barrier = machine.address(instruction, operands[2])
    masks = machine.source(instruction, operands[3], "u16") if multicast else None

    def step(active) -> None:
        for lane in np.flatnonzero(active.mask).tolist():
            map, start = box.of(lane)
            addresses, first, last, inside = map.rows(start)
            data = np.zeros((len(addresses), map.row_bytes), np.uint8)
            of = machine.memory.rows(addresses[inside] + first, last - first, lane, False)
            data[inside, first:last] = machine.memory.bytes[of]
            to = int(base[lane] + offset)
            place(machine, instruction, lane, to, chunk_offsets(map, to, lane), data.reshape(-1, CHUNK), barrier, masks)

    return step


def chunk_offsets(map: TensorMap, address: int, lane: int) -> Array:
    """Where the chunks of a box go, from its address in shared memory."""
    alignment = ALIGNMENT if map.swizzle == CHUNK else 8 * map.swizzle
    if address % alignment:
        what = f"a box with a swizzle of {map.swizzle} bytes at shared address {address:#x}, not a multiple of {alignment}"
        raise LaneError(lane, what)
    return swizzled(address + CHUNK * np.arange(map.box_bytes // CHUNK), map.swizzle) - address


def store_box(machine, instruction: Instruction, box: Box) -> Step:
    base, offset = machine.address(instruction, instruction.operands[1])

    def step(active) -> None:
        for lane in np.flatnonzero(active.mask).tolist():
            map, start = box.of(lane)
            addresses, first, last, inside = map.rows(start)
            chunks = source_chunks(machine, lane, int(base[lane] + offset), chunk_offsets(map, int(base[lane] + offset), lane))
            to = machine.memory.rows(addresses[inside] + first, last - first, lane, True)

            def write(data: Array, rows=inside, columns=slice(first, last), to=to, row_bytes=map.row_bytes) -> None:
                machine.memory.bytes[to] = data.reshape(-1, row_bytes)[rows, columns]

            machine.bulk.store(lane, instruction, chunks, write)

    return step
