"""cp.async.bulk: copies of flat bytes by one thread; PTX ISA 9.7.9.25.4. Those of tensors are in tensor_copy.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .faults import LaneError
from .mbarriers import BYTES as MBARRIER_BYTES
from .registry import Step
from .shadow import CHUNK
from .syntax import Instruction, Modifiers
from .values import Array

TO_SHARED = ("shared::cluster", "global", "mbarrier::complete_tx::bytes")
TO_GLOBAL = ("global", "shared::cta", "bulk_group")


def bulk(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    if modifiers.flag("commit_group"):
        modifiers.done()
        return lambda active: np.add(machine.bulk.committed, 1, out=machine.bulk.committed, where=active.where)
    if modifiers.flag("wait_group"):
        # Nothing here tells having read shared memory from having written global memory.
        modifiers.flag("read")
        modifiers.done()
        pending = int(instruction.operands[0], 0)
        return lambda active: machine.bulk.wait(active.mask, pending)
    if modifiers.flag("prefetch"):
        return lambda active: None
    load = "bulk_group" not in modifiers.left
    multicast = modifiers.flag("multicast::cluster")
    modifiers.flag("L2::cache_hint")
    expected = TO_SHARED if load else TO_GLOBAL
    if load and "shared::cta" in modifiers.left:
        expected = ("shared::cta", *TO_SHARED[1:])
    if tuple(modifiers.left) != expected:
        raise instruction.unsupported(f"cp.async.bulk.{'.'.join(TO_SHARED)} or .{'.'.join(TO_GLOBAL)} needed")
    return flat_load(machine, instruction, multicast) if load else flat_store(machine, instruction)


def flat_load(machine, instruction: Instruction, multicast: bool) -> Step:
    operands = instruction.operands
    destination, source, barrier = (machine.address(instruction, operands[index]) for index in (0, 1, 3))
    size = machine.source(instruction, operands[2], "u32")
    masks = machine.source(instruction, operands[4], "u16") if multicast else None

    def step(active) -> None:
        for lane in np.flatnonzero(active.mask).tolist():
            count = int(size[lane])
            check_chunks(count, int(source[0][lane] + source[1]), lane)
            bytes = machine.memory.rows(np.array([source[0][lane] + source[1]]), count, lane, False)
            data = machine.memory.bytes[bytes].reshape(-1, CHUNK)
            to = int(destination[0][lane] + destination[1])
            place(machine, instruction, lane, to, CHUNK * np.arange(count // CHUNK), data, barrier, masks)

    return step


def place(
    machine, instruction: Instruction, lane: int, to: int, offsets: Array, data: Array, barrier, masks: Array | None
) -> None:
    """Begin a load of chunks to offsets from an address, in the blocks of a mask or in the one the address points to."""
    lanes = np.array([lane])
    ends = np.array([to, to + int(offsets.max())])
    first = int(machine.cluster_shared.position(ends, CHUNK, lanes.repeat(2), True)[0])
    signal = np.array([int(barrier[0][lane] + barrier[1])])
    signal = int(machine.cluster_shared.position(signal, MBARRIER_BYTES, lanes, True)[0])
    for shift in block_shifts(machine, lane, first // machine.shared.stride, masks):
        chunks = (first + shift + offsets) // CHUNK
        mbarrier = machine.mbarriers.at(signal + shift, lane, from_outside=machine.cluster_size > 1)
        machine.bulk.load(lane, instruction, mbarrier, chunks, data)


def block_shifts(machine, lane: int, block: int, masks: Array | None) -> list[int]:
    """How far the shared memory of each block that a load goes to lies from that of its address."""
    if masks is None:
        return [0]
    mask, size = int(masks[lane]), machine.cluster_size
    if not 0 < mask < 1 << size:
        raise LaneError(lane, f"multicast to blocks {mask:#x} of a cluster of {size}")
    first = lane // machine.threads // size * size
    blocks = [first + rank for rank in range(size) if mask >> rank & 1]
    for one in blocks:
        if machine.waits.has_exited(one):
            raise LaneError(lane, f"multicast to block {one - first} of the cluster, all of whose threads have returned")
    return [(one - block) * machine.shared.stride for one in blocks]


def flat_store(machine, instruction: Instruction) -> Step:
    destination, source = (machine.address(instruction, operand) for operand in instruction.operands[:2])
    size = machine.source(instruction, instruction.operands[2], "u32")

    def step(active) -> None:
        for lane in np.flatnonzero(active.mask).tolist():
            count, to = int(size[lane]), int(destination[0][lane] + destination[1])
            check_chunks(count, to, lane)
            bytes = machine.memory.rows(np.array([to]), count, lane, True)
            chunks = source_chunks(machine, lane, int(source[0][lane] + source[1]), CHUNK * np.arange(count // CHUNK))
            machine.bulk.store(lane, instruction, chunks, writer_of(machine, bytes))

    return step


def writer_of(machine, bytes: Array) -> Callable[[Array], None]:
    def write(data: Array) -> None:
        machine.memory.bytes[bytes] = data.reshape(bytes.shape)

    return write


def source_chunks(machine, lane: int, address: int, offsets: Array) -> Array:
    ends = np.array([address, address + int(offsets.max())])
    first = int(machine.shared.position(ends, CHUNK, np.array([lane, lane]), False)[0])
    return (first + offsets) // CHUNK


def check_chunks(count: int, address: int, lane: int) -> None:
    if count % CHUNK or not count or address % CHUNK:
        raise LaneError(lane, f"bulk copy of {count} bytes at {address:#x}: multiples of {CHUNK} needed")
