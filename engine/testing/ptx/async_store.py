"""st.async: registers to the shared memory of a block of the cluster, counted at an mbarrier there; PTX ISA 9.7.9.12.

As with bulk copies, the bytes are there once the phase is complete. Known here in the width of what the shadow watches.
"""

from __future__ import annotations

import numpy as np

from .faults import LaneError
from .mbarriers import BYTES, groups_of
from .registry import Step
from .shadow import CHUNK
from .syntax import Instruction, Modifiers


def async_store(machine, instruction: Instruction, modifiers: Modifiers) -> Step:
    modifiers.flag("weak")
    known = modifiers.flag("shared::cluster") and modifiers.flag("mbarrier::complete_tx::bytes") and modifiers.flag("v4")
    if not known or modifiers.type() not in ("b32", "u32", "s32", "f32"):
        raise instruction.unsupported("st.async.shared::cluster.mbarrier::complete_tx::bytes of four words needed")
    base, offset = machine.address(instruction, instruction.operands[0])
    values = [machine.source(instruction, name.strip(), "b32") for name in instruction.operands[1].strip("{}").split(",")]
    barrier, barrier_offset = machine.address(instruction, instruction.operands[2])
    stride = machine.shared.stride

    def step(active) -> None:
        lanes = np.flatnonzero(active.mask)
        to = machine.cluster_shared.position(base[lanes] + offset, CHUNK, lanes, True)
        signal = machine.cluster_shared.position(barrier[lanes] + barrier_offset, BYTES, lanes, True)
        elsewhere = to // stride != signal // stride
        if elsewhere.any():
            raise LaneError(int(lanes[int(np.argmax(elsewhere))]), "st.async to one block and counted at an mbarrier of another")
        data = np.stack([value[lanes] for value in values], 1).view(np.uint8)
        for (position,), chosen in groups_of(signal):
            lane = int(lanes[chosen[0]])
            mbarrier = machine.mbarriers.at(position, lane, from_outside=True)
            machine.bulk.load(lane, instruction, mbarrier, to[chosen] // CHUNK, data[chosen])

    return step
