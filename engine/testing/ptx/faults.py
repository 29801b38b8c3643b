"""What a kernel does wrong, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .syntax import Instruction


class PtxFault(RuntimeError):
    """Names kernel, PTX line, thread and block, and what happened."""


class LaneError(Exception):
    """What one lane of a batch did wrong; the interpreter adds the rest. instruction: where it is not the one that runs."""

    def __init__(self, lane: int, sentence: str, instruction: Instruction | None = None) -> None:
        super().__init__(sentence)
        self.lane = lane
        self.sentence = sentence
        self.instruction = instruction
