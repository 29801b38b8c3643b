"""Opcode -> the function that turns an instruction into a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Active, Machine
    from .syntax import Instruction

Step = Callable[["Active"], None]
Decoder = Callable[["Machine", "Instruction"], Step]

TERMINATORS = frozenset({"bra", "brx", "ret", "exit", "trap", "bar", "barrier"})
# Of these opcodes, those with one of these modifiers.
WAITS = {"mbarrier": {"try_wait", "test_wait"}, "wgmma": {"mma_async"}}

DECODERS: dict[str, Decoder] = {}


def ends_block(instruction: Instruction) -> bool:
    """Whether an instruction leads elsewhere, or waits for other threads."""
    return instruction.opcode in TERMINATORS or not WAITS.get(instruction.opcode, set()).isdisjoint(instruction.modifiers)


def opcode(*names: str) -> Callable[[Decoder], Decoder]:
    """Register a decoder for the part of an instruction's name before the first dot."""

    def register(decoder: Decoder) -> Decoder:
        for name in names:
            DECODERS[name] = decoder
        return decoder

    return register
