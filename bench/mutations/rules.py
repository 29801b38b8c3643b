"""The rules: each names one kind of mistake and lists every place of a source where it could have been made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from names import ALIKE, OTHER_INSTRUCTION, OTHER_TYPE
from source import ASSIGNMENTS, PRECEDENCE, Source

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
    if not starts_statement(source, index) or is_synchronisation(source, index):
        return
    end = index
    while source[end].text != ";":
        if source.partner.get(end, end) < end:  # a list of values in braces
            return
        end = source.partner.get(end, end) + 1
    texts = [token.text for token in source.tokens[index:end]]
    is_update = texts[0] in ("++", "--") or any(source[at].text in ASSIGNMENTS for at in top_level(source, index, end))
    if is_update and declares(source, index):
        return
    if is_update or texts[-1] == ")" and texts[0] not in ("return", "static_assert", "KEEP_APART", "SHARED_MEMORY") and not declares(source, index):
        yield Edit(index, end - 1, "void()")


def top_level(source: Source, first: int, end: int) -> Iterator[int]:
    at = first
    while at < end:
        yield at
        at = source.partner.get(at, at) + 1


def starts_statement(source: Source, index: int) -> bool:
    before = source[index - 1].text
    starts = before in (";", "{", "}", "else") or (before == ")" and source._ends_condition(index - 1))
    token = source[index]
    in_for = any(source[at].text == "(" and at < index < source.partner[at] and source[at - 1].text == "for" for at in open_brackets(source, index))
    allowed = token.kind == "name" and token.text not in ("if", "for", "while", "else", "switch", "using", "const", "constexpr", "return", "static")
    return starts and source.in_function(index) and not source.in_initializers(index) and not in_for and (allowed or token.text in ("++", "--"))


def open_brackets(source: Source, index: int) -> Iterator[int]:
    """The opening bracket that the token stands in, if it is a round one."""
    at = index - 1
    while at >= 0 and source[at].text not in ("{", "}"):
        if at in source.partner and source[at].text in (")", "]", ">"):
            at = source.partner[at]
        elif source[at].text == "(":
            yield at
            return
        at -= 1


def declares(source: Source, index: int) -> bool:
    """Whether the statement begins with a type: two names in a row, or a name after template arguments, * or &."""
    at = index
    while source[at + 1].text == "::" or source[at].text == "::":
        at += 1
    if source[at + 1].text == "<" and at + 1 in source.partner:
        at = source.partner[at + 1]
    after = source[at + 1]
    return after.kind == "name" or (after.text in ("*", "&") and not source.is_binary(at + 1)) or source[index].text in ("auto", "const", "typename")


def is_synchronisation(source: Source, index: int) -> bool:
    return any(is_call(source, index + 2, name) for name in ("barrier", "warp_sync", "cp_async_commit", "cp_async_wait"))


@rule
def conjunct(source: Source, index: int) -> Iterator[Edit]:
    """One side of && or || left out."""
    if source[index].text in ("&&", "||"):
        yield from without_either(source, index)


def without_either(source: Source, index: int) -> Iterator[Edit]:
    """The operation without its right operand; and without its left one, unless that is an operation of the same kind."""
    left, right = source.operand(index, -1), source.operand(index, 1)
    yield Edit(index, right[1], "")
    first_of_chain = not any(
        source.is_binary(at) and PRECEDENCE[source[at].text] == PRECEDENCE[source[index].text]
        for at in top_level(source, left[0], index)
    )
    if first_of_chain:
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
    if token.kind == "number" and token.text.isdecimal() and not source.is_array_bound(index):
        yield Edit(index, index, str(int(token.text) + 1))
        if token.text != "0":
            yield Edit(index, index, str(int(token.text) - 1))


@rule
def term(source: Source, index: int) -> Iterator[Edit]:
    """A term of a sum left out, or with the other sign."""
    if source[index].text in "+-" and source.is_binary(index):
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
    if token.kind != "name" or token.text not in ALIKE or is_declared(source, index):
        return
    reach = source.names_in_reach(index) if source[index - 1].text not in (".", "->", "::") else ALIKE[token.text]
    for other in ALIKE[token.text]:
        if other in reach:
            yield Edit(index, index, other)


def is_declared(source: Source, index: int) -> bool:
    """Whether the name is introduced here: after a type, or before the = of a later declarator."""
    before, after = source[index - 1], source[index + 1].text
    if before.text in (".", "->", "::"):
        return False
    typed = before.kind == "name" and before.text not in ("return", "else", "case") or before.text in (">", "*", "&") and not source.is_binary(index - 1)
    return typed or (before.text == "," and after == "=") or (before.text in (":", ",") and after == "(" and source.in_initializers(index))


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
    in_brackets = source[index - 1].text in ("<", ",") or source[index + 1].text in (">", ",")
    if token.text in OTHER_TYPE and not source.is_constant(index) and in_brackets and in_angle(source, index):
        for other in OTHER_TYPE[token.text]:
            yield Edit(index, index, other)
    elif token.text in ("kHalf", "kBfloat", "kFloat") and source[index - 1].text == "::":
        for other in ("kHalf", "kBfloat", "kFloat"):
            if other != token.text:
                yield Edit(index, index, other)


def in_angle(source: Source, index: int) -> bool:
    return source._angle_around(index) is not None


@rule
def rounding(source: Source, index: int) -> Iterator[Edit]:
    """Truncation for rounding to nearest even."""
    if is_call(source, index, "round_even"):
        first, last = whole_call(source, index)
        yield Edit(first, last, f"float(int({source.piece(index + 2, last - 1)}))")


def edits(source: Source, names: set[str]) -> Iterator[tuple[str, Edit]]:
    """Every edit of the named rules, in the order of the source."""
    for index in range(2, len(source.tokens) - 1):
        if source[source.statement(index)].text == "static_assert":  # it only says what the compiler would find
            continue
        for name, find in RULES.items():
            if name in names:
                for edit in find(source, index):
                    yield name, edit
