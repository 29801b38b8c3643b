"""Opcode -> the function that turns an instruction into a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Active, Machine
    from .syntax import Instruction

Step = Callable[["Active"], None]
Decoder = Callable[["Machine", "Instruction"], Step]

# Instructions that end a basic block: they lead elsewhere, or wait for other threads.
TERMINATORS = frozenset({"bra", "brx", "ret", "exit", "trap", "bar", "barrier"})

DECODERS: dict[str, Decoder] = {}


def opcode(*names: str) -> Callable[[Decoder], Decoder]:
    """Register a decoder for the part of an instruction's name before the first dot."""

    def register(decoder: Decoder) -> Decoder:
        for name in names:
            DECODERS[name] = decoder
        return decoder

    return register
