"""The rules: each names one kind of mistake and lists every place of a source where it could have been made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from names import ALIKE, MEMBERS_ALIKE, OTHER_INSTRUCTION, OTHER_TYPE
from source import PRECEDENCE, Source
from statements import end_of_statement, is_declared

RULES: dict[str, Callable[[Source, int], Iterator[Edit]]] = {}


@dataclass(frozen=True)
class Edit:
    """Tokens first..last become `text`."""

    first: int
    last: int
    text: str


def rule(find: Callable[[Source, int], Iterator[Edit]]) -> Callable[[Source, int], Iterator[Edit]]:
    """find(source, index) yields the edits of the rule at one token. The function's name is the rule's."""
    RULES[find.__name__] = find
    return find


def is_call(source: Source, index: int, *names: str) -> bool:
    return source[index].text in names and source[index - 1].text == "::" and source[index - 2].text == "ptx"


def whole_call(source: Source, index: int) -> tuple[int, int]:
    """From `ptx` to the closing bracket of the call whose name stands at `index`."""
    after = index + 1
    if source[after].text == "<":
        after = source.partner[after] + 1
    return index - 2, source.partner[after]


def removal(source: Source, index: int, *names: str) -> Iterator[Edit]:
    if is_call(source, index, *names):
        yield Edit(*whole_call(source, index), "void()")


@rule
def barrier(source: Source, index: int) -> Iterator[Edit]:
    yield from removal(source, index, "barrier")


@rule
def warp_sync(source: Source, index: int) -> Iterator[Edit]:
    yield from removal(source, index, "warp_sync")


@rule
def commit(source: Source, index: int) -> Iterator[Edit]:
    yield from removal(source, index, "cp_async_commit")


@rule
def wait(source: Source, index: int) -> Iterator[Edit]:
    """One group more may be under way; and no wait at all. Waiting for more than needed is never wrong."""
    if is_call(source, index, "cp_async_wait"):
        first, last = index + 2, source.partner[index + 1] - 1
        yield Edit(first, last, f"{source.piece(first, last)} + 1")
        yield from removal(source, index, "cp_async_wait")


@rule
def valid(source: Source, index: int) -> Iterator[Edit]:
    """A copy that always, or never, reads its source."""
    if is_call(source, index, "cp_async_16"):
        last = source.partner[index + 1] - 1
        first = source.expression(last, last)[0]
        for text in ("true", "false"):
            yield Edit(first, last, text)


@rule
def statement(source: Source, index: int) -> Iterator[Edit]:
    """A call, an assignment or an increment left out."""
    end = end_of_statement(source, index)
    if end is not None and not is_call(source, index + 2, "barrier", "warp_sync", "cp_async_commit", "cp_async_wait"):
        yield Edit(index, end - 1, "void()")


@rule
def conjunct(source: Source, index: int) -> Iterator[Edit]:
    """One side of && or || left out."""
    if source[index].text in ("&&", "||"):
        yield from without_either(source, index)


def without_either(source: Source, index: int) -> Iterator[Edit]:
    """The operation without its right operand; and without its left one, unless that is an operation of the same kind."""
    left, right = source.operand(index, -1), source.operand(index, 1)
    yield Edit(index, right[1], "")
    own = PRECEDENCE[source[index].text]
    if not any(source.is_binary(at) and PRECEDENCE[source[at].text] == own for at in source.top_level(left[0], index)):
        yield Edit(left[0], index, "")


@rule
def negation(source: Source, index: int) -> Iterator[Edit]:
    if source[index].text == "!":
        yield Edit(index, index, "!!")


@rule
def predicate(source: Source, index: int) -> Iterator[Edit]:
    """A condition that always, or never, holds."""
    text = source[index].text
    if text == "if" and source[index + 1].text == "(":
        first, last = index + 2, source.partner[index + 1] - 1
    elif text == "?":
        last = index - 1
        first = source.expression(source.partner.get(last, last), last)[0]
    else:
        return
    yield Edit(first, last, f"({source.piece(first, last)}) || true")
    yield Edit(first, last, "false")


@rule
def comparison(source: Source, index: int) -> Iterator[Edit]:
    """The bound itself counted in or out; equality for its opposite."""
    other = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}.get(source[index].text)
    if other and source.is_binary(index):
        yield Edit(index, index, other)


@rule
def bound(source: Source, index: int) -> Iterator[Edit]:
    """A bound that is one too small."""
    if source[index].text in ("<", "<=", ">", ">=") and source.is_binary(index):
        first, last = source.operand(index, 1)
        yield Edit(first, last, f"{source.piece(first, last)} - 1")


@rule
def number(source: Source, index: int) -> Iterator[Edit]:
    """An integer that is one off: strides, shifts, masks, stages, fragment indices."""
    token = source[index]
    if token.kind == "number" and token.text.isdecimal() and not source.is_array_bound(index) and not in_wait(source, index):
        yield Edit(index, index, str(int(token.text) + 1))
        if token.text != "0":
            yield Edit(index, index, str(int(token.text) - 1))


def in_wait(source: Source, index: int) -> bool:
    """Whether in the argument of cp_async_wait, which has a rule of its own."""
    angle = source.angle_around(index)
    return angle is not None and source[angle - 1].text == "cp_async_wait"


@rule
def term(source: Source, index: int) -> Iterator[Edit]:
    """A term of a sum left out, or with the other sign."""
    text = "string" in (source[index - 1].kind, source[index + 1].kind)
    if source[index].text in "+-" and source.is_binary(index) and not text and not in_wait(source, index):
        yield from without_either(source, index)
        yield Edit(index, index, {"+": "-", "-": "+"}[source[index].text])


@rule
def factor(source: Source, index: int) -> Iterator[Edit]:
    """A factor left out: scales, strides."""
    if source[index].text == "*" and source.is_binary(index):
        yield from without_either(source, index)


@rule
def quotient(source: Source, index: int) -> Iterator[Edit]:
    if source[index].text in ("/", "%") and source.is_binary(index):
        yield Edit(index, source.operand(index, 1)[1], "")
        yield Edit(index, index, {"/": "%", "%": "/"}[source[index].text])


@rule
def bits(source: Source, index: int) -> Iterator[Edit]:
    """A shift or mask left out, or another one in its place: fragment addresses, the swizzle."""
    other = {"<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "|"}.get(source[index].text)
    if other and source.is_binary(index):
        yield Edit(index, source.operand(index, 1)[1], "")
        yield Edit(index, index, other)


@rule
def names(source: Source, index: int) -> Iterator[Edit]:
    """A name that is easily taken for another: rows for columns, activations for weights, one stride for another."""
    token = source[index]
    if token.kind != "name" or is_declared(source, index):
        return
    member = source[index - 1].text in (".", "->")
    qualified = member or source[index - 1].text == "::"
    others = ALIKE.get(token.text, []) + (MEMBERS_ALIKE.get(token.text, []) if member else [])
    for other in others:
        if qualified or other in source.names_in_reach(index):
            yield Edit(index, index, other)


@rule
def instruction(source: Source, index: int) -> Iterator[Edit]:
    """The matrix instruction or load beside the right one."""
    for other in OTHER_INSTRUCTION.get(source[index].text, ()):
        if is_call(source, index, source[index].text):
            yield Edit(index, index, other)


@rule
def dtype(source: Source, index: int) -> Iterator[Edit]:
    """float16 for bfloat16 and the reverse, and integers of another width or sign in casts and loads."""
    token = source[index]
    if token.text in OTHER_TYPE and not source.is_constant(index) and source.angle_around(index) is not None:
        for other in OTHER_TYPE[token.text]:
            yield Edit(index, index, other)
    elif token.text in ("kHalf", "kBfloat", "kFloat") and source[index - 1].text == "::":
        for other in ("kHalf", "kBfloat", "kFloat"):
            if other != token.text:
                yield Edit(index, index, other)


@rule
def rounding(source: Source, index: int) -> Iterator[Edit]:
    """Truncation for rounding to nearest even."""
    if is_call(source, index, "round_even"):
        first, last = whole_call(source, index)
        yield Edit(first, last, f"float(int({source.piece(index + 2, last - 1)}))")


def edits(source: Source, names: set[str]) -> Iterator[tuple[str, Edit]]:
    """Every edit of the named rules, in the order of the source."""
    for index in range(2, len(source.tokens) - 1):
        if source.is_for_the_compiler(index):
            continue
        for name, find in RULES.items():
            if name in names:
                for edit in find(source, index):
                    yield name, edit
