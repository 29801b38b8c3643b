"""What a kernel does wrong, in one sentence."""

from __future__ import annotations


class PtxFault(RuntimeError):
    """Names kernel, PTX line, thread and block, and what happened."""


class LaneError(Exception):
    """What one lane of a batch did wrong; the interpreter adds the rest."""

    def __init__(self, lane: int, sentence: str) -> None:
        super().__init__(sentence)
        self.lane = lane
        self.sentence = sentence
