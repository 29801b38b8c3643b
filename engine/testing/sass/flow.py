"""Basic blocks and natural loops of a kernel.

Source: Aho, Lam, Sethi & Ullman, Compilers, 2006, 9.6 (dominators, back edges, natural loops).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from .disassemble import BYTES, INDIRECT, Instruction, Kernel

JUMPS = {"BRA", "JMP", "CALL"}
ENDS = {"EXIT", "RET", *JUMPS, *INDIRECT}


@dataclass(frozen=True)
class Loop:
    """header: its first block's offset; blocks: offsets; depth: 1 for an outermost loop."""

    header: int
    blocks: frozenset[int]
    depth: int


class Flow:
    """blocks: offset -> instructions; successors: offset -> offsets. Subroutines are not part of it: calls return."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        body = [each for each in kernel.instructions if not _inside(each.offset, kernel.subroutines)]
        self.blocks = self._cut(body)
        self.successors = self._connect()

    def loops(self) -> list[Loop]:
        """Every natural loop, those with one header taken together."""
        dominators = self._dominators()
        bodies: dict[int, set[int]] = {}
        predecessors = _reversed(self.successors)
        for block in dominators:
            for header in self.successors[block] & dominators[block]:
                body, open_ = bodies.setdefault(header, {header}), [block]
                while open_:
                    if (each := open_.pop()) not in body:
                        body.add(each)
                        open_ += predecessors[each] & dominators.keys()
        return [Loop(h, frozenset(body), sum(h in other for other in bodies.values())) for h, body in sorted(bodies.items())]

    def instructions(self, loop: Loop) -> list[Instruction]:
        """What one iteration issues at most: every block of the loop once, and all of a subroutine at each call of it."""
        own = [each for block in sorted(loop.blocks) for each in self.blocks[block]]
        return [issued for each in own for issued in (each, *self._called(each))]

    def _called(self, call: Instruction) -> list[Instruction]:
        if not (span := self._callee(call)):
            return []
        body = [each for each in self.kernel.instructions if span[0] <= each.offset < span[1]]
        last = max(i for i, each in enumerate(body) if each.base == "RET")
        return [issued for each in body[: last + 1] for issued in (each, *self._called(each))]

    def _callee(self, each: Instruction) -> tuple[int, int] | None:
        return self.kernel.subroutines.get(each.operands.rsplit(",", 1)[-1]) if each.base == "CALL" else None

    def _targets(self, each: Instruction) -> frozenset[int]:
        """Where a jump may go; other instructions may end in a number too."""
        if each.base in INDIRECT:
            return self.kernel.jump_tables[each.offset]
        return frozenset({each.target} if each.base in JUMPS and each.target is not None else ())

    def _ends(self, each: Instruction) -> bool:
        return each.base in ENDS and not self._callee(each)

    def _cut(self, body: list[Instruction]) -> dict[int, list[Instruction]]:
        ends = [each for each in body if self._ends(each)]
        starts = {body[0].offset, *(each.offset + BYTES for each in ends)}.union(*map(self._targets, ends))
        blocks: dict[int, list[Instruction]] = {}
        for each in body:
            if each.offset in starts:
                blocks[each.offset] = block = []
            block.append(each)
        return blocks

    def _connect(self) -> dict[int, set[int]]:
        starts = sorted(self.blocks)
        successors: dict[int, set[int]] = {}
        for start, block in self.blocks.items():
            last = block[-1]
            following = starts[bisect.bisect(starts, start) :][:1]
            # Uniform branches carry their predicate as an operand: BRA.U UP0,0x100.
            conditional = not self._ends(last) or last.predicate or (last.base in JUMPS and "," in last.operands)
            successors[start] = {*(following if conditional else ()), *self._targets(last)}
        return successors

    def _dominators(self) -> dict[int, set[int]]:
        """Reachable block -> the blocks that every path to it passes."""
        entry = min(self.blocks)
        order, open_ = {}, [entry]
        while open_:
            if (block := open_.pop()) not in order:
                order[block] = None
                open_ += self.successors[block]
        predecessors = _reversed(self.successors)
        dominators = {block: set(order) for block in order} | {entry: {entry}}
        changed = True
        while changed:
            changed = False
            for block in list(order)[1:]:
                passed = set.intersection(*(dominators[each] for each in predecessors[block] & dominators.keys())) | {block}
                changed |= passed != dominators[block]
                dominators[block] = passed
        return dominators


def _reversed(successors: dict[int, set[int]]) -> dict[int, set[int]]:
    predecessors: dict[int, set[int]] = {block: set() for block in successors}
    for block, following in successors.items():
        for each in following:
            predecessors[each].add(block)
    return predecessors


def _inside(offset: int, spans: dict[str, tuple[int, int]]) -> bool:
    return any(first <= offset < last for first, last in spans.values())
