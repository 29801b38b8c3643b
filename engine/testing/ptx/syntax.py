"""What PTX text is read into: a module's entries, each with its parameters, registers, variables and instructions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from .control_flow import BasicBlock, basic_blocks


class UnsupportedPtx(NotImplementedError):
    """PTX that this interpreter does not know."""


@dataclass(frozen=True)
class Variable:
    """Memory declared by name. initial: its bytes, None where PTX gives none; size 0: an unsized extern array."""

    name: str
    space: str
    align: int
    size: int
    initial: bytes | None = None


@dataclass(frozen=True)
class Instruction:
    """One instruction. predicate: (register, negated) of its guard; line: in the PTX text, from 1."""

    line: int
    text: str
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: tuple[str, bool] | None = None

    def unsupported(self, why: str) -> UnsupportedPtx:
        return UnsupportedPtx(f"PTX line {self.line}, {self.text!r}: {why}")


class Modifiers:
    """The modifiers of an instruction, taken one by one, so that none is ignored unseen."""

    def __init__(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.left = list(instruction.modifiers)

    def flag(self, name: str) -> bool:
        return self.one_of(name) is not None

    def one_of(self, *names: str) -> str | None:
        """The first modifier among names, or None."""
        found = next((modifier for modifier in self.left if modifier in names), None)
        if found is not None:
            self.left.remove(found)
        return found

    def types(self, count: int) -> list[str]:
        """The last count modifiers; nothing else may be left."""
        if len(self.left) != count:
            extra = ", ".join(self.left[: len(self.left) - count]) or "a missing type"
            raise self.instruction.unsupported(f"no meaning is known here for {extra}")
        self.left, types = [], self.left
        return types

    def type(self) -> str:
        return self.types(1)[0]

    def done(self) -> None:
        self.types(0)


@dataclass
class Kernel:
    """One .entry. registers: name -> type; labels: name -> index of an instruction; branch_targets: name -> labels.

    cluster: blocks of a cluster along x, y and z.
    """

    name: str
    parameters: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    branch_targets: dict[str, list[str]] = field(default_factory=dict)
    max_threads: int | None = None
    cluster: tuple[int, int, int] = (1, 1, 1)

    @cached_property
    def blocks(self) -> list[BasicBlock]:
        """Its basic blocks in the order in which they run."""
        return basic_blocks(self)

    def parameter_offsets(self) -> tuple[dict[str, int], int]:
        """Offset of each parameter in the argument buffer, and the buffer's bytes."""
        offsets, end = {}, 0
        for parameter in self.parameters:
            offsets[parameter.name] = end = -(-end // parameter.align) * parameter.align
            end += parameter.size
        return offsets, end


@dataclass
class Module:
    """target: the .target, as sm_80; variables: those declared outside of entries."""

    target: str
    variables: list[Variable]
    entries: dict[str, Kernel]
