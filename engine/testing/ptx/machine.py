"""The state that instructions work on: registers, memory spaces, who waits for what."""

from __future__ import annotations

import re

import numpy as np

from .async_copy import AsyncCopies
from .barriers import NumberedBarriers
from .bulk_copies import BulkCopies
from .cluster import ClusterBarriers, special_registers
from .lanes import WARP, Active
from .mbarriers import MBarriers
from .memory import FIRST_ADDRESS, FlatView, Memory, PrivateMemory, Segment
from .register_watch import RegisterWatch
from .shadow import Shadow
from .shared_cluster import ClusterShared
from .syntax import Instruction, Kernel, Module, Variable
from .values import DTYPES, Array, Registers, constant
from .waiting import Waiting, Waits

ADDRESS = re.compile(r"\[\s*([^+\]]+?)\s*(?:\+\s*(-?\w+))?\s*\]")


def is_asynchronous(instruction) -> bool:
    """Whether it uses shared memory after its thread has gone on, as other than cp.async do."""
    modifiers = instruction.modifiers
    return instruction.opcode == "wgmma" or "bulk" in modifiers or (instruction.opcode == "st" and "async" in modifiers)


class Machine:
    """A batch of blocks of one launch, whole clusters: blocks x threads lanes that run together."""

    def __init__(
        self, module: Module, kernel: Kernel, grid: tuple[int, int, int], threads: int, blocks: int,
        shared_bytes: int, arguments: bytes, memory: Memory,
    ) -> None:  # fmt: skip
        self.kernel, self.grid, self.threads, self.blocks = kernel, grid, threads, blocks
        self.cluster_size = kernel.cluster[0] * kernel.cluster[1] * kernel.cluster[2]
        self.lanes = blocks * threads
        self.registers = Registers(kernel.registers, self.lanes)
        lane = np.arange(self.lanes)
        self.symbols: dict[str, int] = {}
        self._constants: dict[tuple[str, str], Array] = {}
        self.owned: list[Array] = []

        variables = [*module.variables, *kernel.variables]
        shared_size = self._lay_out(variables, "shared", shared_bytes)
        local_size = self._lay_out(variables, "local", 0)
        self.shared = PrivateMemory("shared", blocks, shared_size, lane // threads)
        self.local = PrivateMemory("local", self.lanes, local_size, lane)
        segments = [self._own(v) for v in variables if v.space in ("global", "const")]
        self.memory: FlatView = memory.with_segments([*segments, *self._parameters(arguments)]).view()
        self.copies = AsyncCopies(self.lanes)
        self.cluster_shared = ClusterShared(self)
        self.watch = RegisterWatch(kernel, self.lanes)
        self.special = self._special_registers(lane)

    def begin(self, first_block: int) -> Active:
        """Fresh state for the batch that starts at a block; the lanes of blocks beyond the grid stay inactive."""
        self.registers.poison()
        self.shared.poison()
        self.local.poison()
        self.copies = AsyncCopies(self.lanes)
        self.waits = Waits(self.lanes, self.threads)
        self.barriers, self.cluster_barriers = NumberedBarriers(self), ClusterBarriers(self)
        self.mbarriers, self.bulk = MBarriers(self), BulkCopies(self)
        self.watch.reset()
        self.warpgroups: dict[int, list[Waiting]] = {}
        if any(is_asynchronous(one) for one in self.kernel.instructions):
            self.shared.shadow = Shadow(self.shared.bytes.size, self.threads)
        blocks = first_block + np.arange(self.lanes) // self.threads
        for name, value in special_registers(self.grid, self.kernel.cluster, blocks).items():
            self.special[name][:] = value
        inside = self.special["%ctaid.z"] < self.grid[2]
        self.waits.exited |= ~inside
        return Active(inside)

    def exit(self, mask: Array) -> None:
        """Threads return."""
        self.waits.exited |= mask
        self.cluster_barriers.check()

    def wake(self, alone: bool) -> list[tuple[int, Array]]:
        """The lanes that no longer wait once what is under way completes, and where they go on. alone: nobody else can run.

        Raises LaneError where that leaves lanes waiting, or copies under way when all threads have returned.
        """
        while not self.waits.woken and self.bulk.land_awaited():
            pass
        if alone and not self.waits.woken:
            self.mbarriers.time_out()
        if alone and not self.waits.woken:
            self.waits.raise_if_stuck()
            self.bulk.raise_if_left()
        return self.waits.take_woken()

    def place(self, lane: int) -> str:
        """The thread and block of a lane, in words."""
        return f"thread {lane % self.threads} of {self.block_at(lane // self.threads)}"

    def block_at(self, index: int) -> str:
        """A block of the batch, in words."""
        lane = index * self.threads
        return f"block ({', '.join(str(int(self.special[f'%ctaid.{axis}'][lane])) for axis in 'xyz')})"

    def source(self, instruction: Instruction, operand: str, type: str) -> Array:
        """What an operand holds, one value per lane."""
        if operand in self.registers:
            try:
                return self.registers.source(operand, type)
            except ValueError as error:
                raise instruction.unsupported(str(error)) from None
        if operand in self.special:
            of_batch = operand.startswith(("%ctaid", "%clusterid"))
            return self._live(operand, type) if of_batch else self.special[operand].astype(DTYPES[type])
        value = constant(operand, type)
        if value is None:
            name, _, offset = operand.partition("+")
            if name not in self.symbols:
                raise instruction.unsupported(f"no meaning is known here for {operand}")
            value = DTYPES[type].type(self.symbols[name] + int(offset or "0", 0))
        key = (type, repr(value))
        if key not in self._constants:
            self._constants[key] = np.full(self.lanes, value, DTYPES[type])
        return self._constants[key]

    def target(self, instruction: Instruction, operand: str, type: str) -> Array:
        """A view through which a result is written; `_` leads nowhere."""
        if operand == "_":
            return np.empty(self.lanes, DTYPES[type])
        if operand not in self.registers:
            raise instruction.unsupported(f"no register {operand}")
        try:
            return self.registers.target(operand, type)
        except ValueError as error:
            raise instruction.unsupported(str(error)) from None

    def address(self, instruction: Instruction, operand: str) -> tuple[Array, np.generic]:
        """Base, one per lane in 64 bits or 32, and the constant to add to it, of an operand such as [%rd1+8]."""
        match = ADDRESS.fullmatch(operand)
        if match is None:
            raise instruction.unsupported(f"an address needed, got {operand}")
        base, offset = match[1], int(match[2] or "0", 0)
        narrow = base in self.registers and self.registers.row(base).dtype.itemsize == 4
        dtype = np.dtype("u4" if narrow else "u8")
        return self.source(instruction, base, "u32" if narrow else "u64"), dtype.type(offset % (1 << 8 * dtype.itemsize))

    def _live(self, operand: str, type: str) -> Array:
        return self.special[operand].view(DTYPES[type]) if DTYPES[type].itemsize == 4 else self.special[operand]

    def _lay_out(self, variables: list[Variable], space: str, dynamic_bytes: int) -> int:
        """Give each variable of a space its address; an unsized array starts where the sized ones end."""
        end = FIRST_ADDRESS
        for variable in sorted((v for v in variables if v.space == space), key=lambda v: not v.size):
            self.symbols[variable.name] = start = -(-end // variable.align) * variable.align
            end = start + variable.size
            last = start
        unsized = any(v.space == space and not v.size for v in variables)
        return (last if unsized else end) - FIRST_ADDRESS + dynamic_bytes

    def _own(self, variable: Variable) -> Segment:
        data = np.zeros(max(variable.size, 1) + variable.align, np.uint8)
        self.owned.append(data)
        start = -data.ctypes.data % variable.align
        if variable.initial is not None:
            data[start : start + variable.size] = np.frombuffer(variable.initial, np.uint8)
        self.symbols[variable.name] = data.ctypes.data + start
        return Segment(variable.name, data.ctypes.data + start, variable.size, variable.space == "global")

    def _parameters(self, arguments: bytes) -> list[Segment]:
        offsets, size = self.kernel.parameter_offsets()
        if len(arguments) != size:
            raise ValueError(f"arguments: the {size} bytes of {self.kernel.name} needed, got {len(arguments)}")
        # Tensor maps are aligned to 64 bytes.
        data = np.zeros(size + 64, np.uint8)
        start = -data.ctypes.data % 64
        data[start : start + size] = np.frombuffer(arguments, np.uint8)
        self.owned.append(data)
        self.symbols |= {name: data.ctypes.data + start + offset for name, offset in offsets.items()}
        return [Segment("the arguments", data.ctypes.data + start, size, False)]

    def _special_registers(self, lane: Array) -> dict[str, Array]:
        thread, ones = (lane % self.threads).astype(np.uint32), np.ones(self.lanes, np.uint32)
        laneid = thread % np.uint32(WARP)
        bit = np.uint32(1) << laneid
        fixed = {
            "%tid.x": thread, "%tid.y": 0 * ones, "%tid.z": 0 * ones,
            "%ntid.x": self.threads * ones, "%ntid.y": ones, "%ntid.z": ones,
            "%laneid": laneid, "%warpid": thread // np.uint32(WARP), "%nwarpid": self.threads // WARP * ones,
            "%lanemask_eq": bit, "%lanemask_lt": bit - np.uint32(1), "%lanemask_le": bit | (bit - np.uint32(1)),
            "%lanemask_gt": ~(bit | (bit - np.uint32(1))), "%lanemask_ge": ~(bit - np.uint32(1)),
            "%dynamic_smem_size": self.shared.size * ones,
        }  # fmt: skip
        fixed |= {f"%nctaid.{axis}": extent * ones for axis, extent in zip("xyz", self.grid)}
        special = {name: value.astype(np.uint32) for name, value in fixed.items()}
        return special | special_registers(self.grid, self.kernel.cluster, lane // self.threads)
