"""mov, ld and st; PTX ISA 9.7.9."""

from __future__ import annotations

import numpy as np

from .async_store import async_store
from .memory import LOCAL_WINDOW, SHARED_WINDOW
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import DTYPES, Array

SPACES = ("global", "shared", "shared::cta", "shared::cluster", "local", "param", "const")
# Caching and ordering between threads: nothing that one order of execution could show.
HINTS = (
    "volatile", "weak", "relaxed", "acquire", "release", "cta", "cluster", "gpu", "sys",
    "nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt",
    "L1::evict_normal", "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L1::evict_unchanged",
    "L2::64B", "L2::128B", "L2::256B", "L2::evict_normal", "L2::evict_first", "L2::evict_last",
)  # fmt: skip


def vector(operand: str) -> list[str]:
    """The elements of {a, b}, or the one operand."""
    return [element.strip() for element in operand.strip("{}").split(",")]


@opcode("mov")
def move(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    to, of = instruction.operands
    if to.startswith("{"):
        return unpack(machine, instruction, type, vector(to), of)
    if of.startswith("{"):
        return pack(machine, instruction, type, to, vector(of))
    target, source = machine.target(instruction, to, type), machine.source(instruction, of, type)
    return lambda active: np.copyto(target, source, where=active.where)


def element_type(type: str, count: int) -> str:
    return f"b{8 * DTYPES[type].itemsize // count}"


def unpack(machine, instruction: Instruction, type: str, names: list[str], of: str) -> Step:
    element = element_type(type, len(names))
    targets = [machine.target(instruction, name, element) for name in names]
    source = machine.source(instruction, of, type)

    def step(active) -> None:
        parts = np.ascontiguousarray(source).view(DTYPES[element]).reshape(-1, len(names)).copy()
        for index, target in enumerate(targets):
            np.copyto(target, parts[:, index], where=active.where)

    return step


def pack(machine, instruction: Instruction, type: str, to: str, names: list[str]) -> Step:
    element = element_type(type, len(names))
    sources = [machine.source(instruction, name, element) for name in names]
    target = machine.target(instruction, to, type)
    return lambda active: np.copyto(target, np.stack(sources, 1).view(DTYPES[type])[:, 0], where=active.where)


def access(machine, instruction: Instruction) -> tuple[str | None, str, int]:
    """State space (None: generic), type and number of elements of an ld or st."""
    modifiers = Modifiers(instruction)
    space = modifiers.one_of(*SPACES)
    count = int((modifiers.one_of("v2", "v4", "v8") or "v1")[1:])
    while modifiers.one_of(*HINTS):
        pass
    return space, modifiers.type(), count


@opcode("ld", "ldu")
def load(machine, instruction: Instruction) -> Step:
    space, type, count = access(machine, instruction)
    names = vector(instruction.operands[0])
    if len(names) != count or len(instruction.operands) != 2:
        raise instruction.unsupported(f"{count} registers and an address needed")
    targets = [machine.target(instruction, name, type) for name in names]
    base, offset = machine.address(instruction, instruction.operands[1])
    size, dtype = DTYPES[type].itemsize, DTYPES[type]
    read = reader(machine, space)

    def step(active) -> None:
        lanes = active.lanes
        for target, value in zip(targets, read(base[lanes] + offset, size, count, lanes)):
            target[lanes] = value.view(dtype)

    return step


@opcode("st")
def store(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    if modifiers.flag("async"):
        return async_store(machine, instruction, modifiers)
    space, type, count = access(machine, instruction)
    names = vector(instruction.operands[1])
    if len(names) != count or len(instruction.operands) != 2:
        raise instruction.unsupported(f"an address and {count} registers needed")
    sources = [machine.source(instruction, name, f"b{8 * DTYPES[type].itemsize}") for name in names]
    base, offset = machine.address(instruction, instruction.operands[0])
    write = writer(machine, space)
    return lambda active: write(base[active.lanes] + offset, [source[active.lanes] for source in sources], active.lanes)


def memory_of(machine, space: str):
    shared = {"shared": machine.shared, "shared::cta": machine.shared, "shared::cluster": machine.cluster_shared}
    return {**shared, "local": machine.local}.get(space, machine.memory)


def reader(machine, space: str | None):
    """A function of addresses, element bytes, elements and lanes."""
    if space is not None:
        return memory_of(machine, space).load

    def generic(addresses: Array, size: int, count: int, lanes: Array | slice) -> list[Array]:
        values = [np.empty(len(addresses), f"u{size}") for _ in range(count)]
        for memory, chosen, local_addresses in windows(machine, addresses):
            for value, part in zip(values, memory.load(local_addresses, size, count, lanes_of(lanes, chosen))):
                value[chosen] = part
        return values

    return generic


def writer(machine, space: str | None):
    """A function of addresses, the values of each element, and lanes."""
    if space is not None:
        return memory_of(machine, space).store

    def generic(addresses: Array, values: list[Array], lanes: Array | slice) -> None:
        for memory, chosen, local_addresses in windows(machine, addresses):
            memory.store(local_addresses, [value[chosen] for value in values], lanes_of(lanes, chosen))

    return generic


def windows(machine, addresses: Array):
    """(memory, which accesses go there, their addresses in it) for generic addresses."""
    in_local, in_shared = addresses >= LOCAL_WINDOW, (addresses >= SHARED_WINDOW) & (addresses < LOCAL_WINDOW)
    spaces = [(machine.local, in_local, LOCAL_WINDOW), (machine.cluster_shared, in_shared, SHARED_WINDOW)]
    for memory, chosen, window in [*spaces, (machine.memory, ~(in_local | in_shared), 0)]:
        indices = np.flatnonzero(chosen)
        if indices.size:
            yield memory, indices, addresses[indices] - np.uint64(window)


def lanes_of(lanes: Array | slice, chosen: Array) -> Array:
    return chosen if isinstance(lanes, slice) else lanes[chosen]


@opcode("prefetch", "prefetchu", "membar", "nanosleep", "griddepcontrol", "discard")
def nothing(machine, instruction: Instruction) -> Step:
    """Hints, waits and order between threads change no result here."""
    return lambda active: None
