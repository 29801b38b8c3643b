"""Clusters: blocks that run together and see each other's shared memory; PTX ISA 5.1.4, 9.7.9.22 (mapa), 9.7.13.3 (barrier)."""

from __future__ import annotations

import numpy as np

from .control_flow import BasicBlock
from .faults import LaneError
from .lanes import Active
from .memory import SHARED_WINDOW
from .registry import Step, opcode
from .shared_cluster import RANK_SHIFT
from .syntax import Instruction, Modifiers
from .values import Array
from .waiting import Waiting


def special_registers(grid: tuple[int, int, int], cluster: tuple[int, int, int], block: Array) -> dict[str, Array]:
    """Of the lanes of these blocks, which are numbered cluster after cluster."""
    size = cluster[0] * cluster[1] * cluster[2]
    clusters = [extent // inside for extent, inside in zip(grid, cluster)]
    values = {"%cluster_ctarank": block % size, "%cluster_nctarank": size, "%is_explicit_cluster": size > 1}
    places = zip("xyz", coordinates(block // size, clusters), coordinates(block % size, cluster), clusters, cluster, strict=True)
    for axis, outer, inner, extent, inside in places:
        values |= {f"%ctaid.{axis}": outer * inside + inner, f"%clusterid.{axis}": outer, f"%cluster_ctaid.{axis}": inner}
        values |= {f"%nclusterid.{axis}": extent, f"%cluster_nctaid.{axis}": inside}
    return {name: np.broadcast_to(value, block.shape).astype(np.uint32) for name, value in values.items()}


def coordinates(index: Array, extents) -> tuple[Array, Array, Array]:
    x, y, _ = extents
    return index % x, index // x % y, index // (x * y)


class ClusterBarriers:
    """The one barrier of each cluster. arrived: lanes that have come and not gone on; waiting: those that stay until all have."""

    def __init__(self, machine) -> None:
        self.machine = machine
        self.lanes_of_cluster = machine.threads * machine.cluster_size
        self.arrived, self.may_go_on = np.zeros(machine.lanes, bool), np.zeros(machine.lanes, bool)
        self.waiting: list[Waiting] = []

    def arrive(self, mask: Array) -> None:
        again = mask & (self.arrived | self.may_go_on)
        if again.any():
            raise LaneError(int(np.argmax(again)), "a second barrier.cluster.arrive without a barrier.cluster.wait between")
        self.arrived |= mask
        self.check()

    def check(self) -> None:
        """Those who have returned need not come."""
        here = (self.arrived | self.machine.waits.exited).reshape(-1, self.lanes_of_cluster).all(1).repeat(self.lanes_of_cluster)
        complete = here & self.arrived
        if complete.any():
            self.arrived &= ~complete
            self.may_go_on |= complete
            for waiting in list(self.waiting):
                self.may_go_on &= ~(waiting.mask & complete)
                self.machine.waits.wake(waiting, complete)
            self.waiting = [one for one in self.waiting if one.mask.any()]

    def wait(self, mask: Array, resume: int, instruction: Instruction) -> Array:
        """The lanes that need not wait."""
        absent = mask & ~(self.arrived | self.may_go_on)
        if absent.any():
            raise LaneError(int(np.argmax(absent)), "barrier.cluster.wait without a barrier.cluster.arrive before")
        going = mask & self.may_go_on
        self.may_go_on &= ~going
        if (mask & ~going).any():
            self.waiting.append(Waiting(mask & ~going, resume, instruction))
            self.machine.waits.add(self.waiting[-1])
        return going


def cluster_barrier(machine, block: BasicBlock):
    """What barrier.cluster does at the end of a block."""
    instruction = block.terminator
    modifiers = Modifiers(instruction)
    modifiers.flag("cluster")
    kind = modifiers.one_of("arrive", "wait")
    modifiers.one_of("release", "relaxed", "acquire")
    aligned = modifiers.flag("aligned")
    if kind is None:
        raise instruction.unsupported("barrier.cluster.arrive or .wait needed")
    modifiers.done()

    def take(active: Active) -> list[tuple[int, Array]]:
        if aligned:
            active.whole_warps("barrier.cluster")
        if kind == "arrive":
            machine.cluster_barriers.arrive(active.mask)
            return [(block.next, active.mask)]
        going = machine.cluster_barriers.wait(active.mask, block.next, instruction)
        return [(block.next, going)] if going.any() else []

    return take


@opcode("mapa")
def address_in_cluster(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    in_window = modifiers.flag("shared::cluster")
    type = modifiers.type()
    target = machine.target(instruction, instruction.operands[0], type)
    source, rank = (machine.source(instruction, one, kind) for one, kind in zip(instruction.operands[1:], (type, "u32")))
    window = 0 if in_window else SHARED_WINDOW

    def step(active: Active) -> None:
        beyond = active.mask & (rank >= machine.cluster_size)
        if beyond.any():
            lane = int(np.argmax(beyond))
            raise LaneError(lane, f"mapa: block {int(rank[lane])} of a cluster of {machine.cluster_size}")
        offset = (source - target.dtype.type(window)) & target.dtype.type((1 << RANK_SHIFT) - 1)
        address = offset | ((rank.astype(target.dtype) + target.dtype.type(1)) << target.dtype.type(RANK_SHIFT))
        np.copyto(target, address + target.dtype.type(window), where=active.where)

    return step
