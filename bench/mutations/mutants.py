"""Mutants of a source: each is one edit, known by file, line, rule and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rules import RULES, edits
from source import Source


@dataclass(frozen=True)
class Mutant:
    """id: file:line:rule:count. begin..end of the source become `text`. constant: the compiler must know the value."""

    id: str
    file: str
    line: int
    rule: str
    begin: int
    end: int
    text: str
    region: tuple[int, int]  # of the whole expression around
    constant: bool
    before: str
    after: str

    def applied(self, text: str) -> str:
        return text[: self.begin] + self.text + text[self.end :]


def one_line(text: str) -> str:
    return " ".join(text.split())


def mutants_of(source: Source, rules: set[str] | None = None) -> Iterator[Mutant]:
    counts: Counter[tuple[int, str]] = Counter()
    seen = set()
    for rule, edit in edits(source, rules or set(RULES)):
        begin, end = source[edit.first].start, source[edit.last].end
        if (begin, end, edit.text) in seen or source.text[begin:end] == edit.text:
            continue
        seen.add((begin, end, edit.text))
        first, last = source.expression(edit.first, edit.last)
        line = source.line_of(begin)
        counts[line, rule] += 1
        line_begin, line_end = source.text.rfind("\n", 0, begin) + 1, source.text.find("\n", end)
        before = source.text[line_begin:line_end]
        after = source.text[line_begin:begin] + edit.text + source.text[end:line_end]
        yield Mutant(
            f"{source.path}:{line}:{rule}:{counts[line, rule]}", source.path, line, rule, begin, end, edit.text,
            (source[first].start, source[last].end), source.is_constant(edit.first), one_line(before), one_line(after),
        )  # fmt: skip
