"""All mutants of a source in one text, each behind a switch that is read at run time: one compilation serves them all.

Source: Untch, Offutt and Harrold 1993, mutant schemata.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict

from mutants import Mutant, one_line

COMMENT = re.compile(r"//[^\n]*")


class Switches:
    """text: the source with `(halfbyte_mutant == n ? mutated : original)` for every region; lines stay where they were."""

    def __init__(self, text: str, numbered: dict[int, Mutant]) -> None:
        self.original = text
        self.regions: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.numbered = numbered
        for number, mutant in numbered.items():
            self.regions[mutant.region].append(number)
        # Where in `text` each mutant and each whole switch stands.
        self.mutants: list[tuple[int, int, int]] = []
        self.switches: list[tuple[int, int, list[int]]] = []
        self.text = ""
        self._expand(0, len(text), sorted(self.regions, key=lambda region: (region[0], -region[1])))

    def _expand(self, begin: int, end: int, regions: list[tuple[int, int]]) -> None:
        at = begin
        while regions:
            first, *rest = regions
            inside = [region for region in rest if region[0] < first[1]]
            self.text += self.original[at : first[0]]
            self._switch(first, inside)
            at = first[1]
            regions = rest[len(inside) :]
        self.text += self.original[at:end]

    def _switch(self, region: tuple[int, int], inside: list[tuple[int, int]]) -> None:
        numbers = self.regions[region]
        begin = len(self.text)
        # A statement left out has no value, and a condition set is no pointer, so neither may the other versions be.
        rules = {self.numbered[number].rule for number in numbers}
        left_out = any(self.numbered[number].text == "void()" for number in numbers)
        wrap = "void" if left_out else "bool" if "predicate" in rules else ""
        self.text += "("
        for number in numbers:
            mutant = self.numbered[number]
            first, last = region
            mutated = self.original[first : mutant.begin] + mutant.text + self.original[mutant.end : last]
            start = len(self.text)
            self.text += f"halfbyte_mutant == {number} ? {wrap}({one_line(COMMENT.sub('', mutated))})"
            self.mutants.append((start, len(self.text), number))
            self.text += " : "
        self.text += f"{wrap}("
        self._expand(*region, inside)
        self.text += "))"
        self.switches.append((begin, len(self.text), numbers))

    def mutant_at(self, line: int, column: int) -> int | None:
        """Number of the mutant at a place of the text; line and column count from 1."""
        position = self._position(line, column)
        return next((number for begin, end, number in self.mutants if begin <= position < end), None)

    def all_at(self, line: int, column: int) -> list[int]:
        """Numbers in the smallest switch around."""
        position = self._position(line, column)
        around = [(end - begin, numbers) for begin, end, numbers in self.switches if begin <= position < end]
        return min(around)[1] if around else []

    def all_in(self, line: int) -> list[int]:
        """Numbers of all switches that begin in a line."""
        first, end = self._position(line, 1), self._position(line + 1, 1)
        return [number for begin, _, numbers in self.switches if first <= begin < end for number in numbers]

    def _position(self, line: int, column: int) -> int:
        starts = [0, *(found.end() for found in re.finditer("\n", self.text))]
        return starts[line - 1] + column - 1


def switchable(mutants: list[Mutant]) -> list[Mutant]:
    """Those whose regions lie in one another or apart, and that the compiler need not know."""
    chosen, open_ends = [], []
    for mutant in sorted((m for m in mutants if not m.constant), key=lambda m: (m.region[0], -m.region[1])):
        begin, end = mutant.region
        open_ends = open_ends[: bisect_right([-e for e in open_ends], -begin - 1)]
        if not open_ends or end <= open_ends[-1]:
            chosen.append(mutant)
            open_ends.append(end)
    return chosen
