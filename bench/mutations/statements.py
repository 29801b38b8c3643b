"""Which tokens begin a statement that could be left out, and which names are only now introduced."""

from __future__ import annotations

from source import ASSIGNMENTS, Source

KEYWORDS = {"if", "for", "while", "else", "switch", "case", "default", "using", "const", "constexpr"} | {
    "return", "static", "static_assert"
}
MACROS = {"KEEP_APART", "SHARED_MEMORY", "UNROLL", "ROLLED", "UNROLL_BY"}


def end_of_statement(source: Source, index: int) -> int | None:
    """Index of the semicolon after the call, assignment or increment that begins here, or None."""
    if not begins_statement(source, index) or declares(source, index):
        return None
    end = index
    while source[end].text != ";":
        if source.partner.get(end, end) < end:  # a list of values in braces
            return None
        end = source.partner.get(end, end) + 1
    changes = source[index].text in ("++", "--") or any(source[at].text in ASSIGNMENTS for at in source.top_level(index, end))
    return end if changes or source[end - 1].text == ")" else None


def begins_statement(source: Source, index: int) -> bool:
    token, before = source[index], source[index - 1].text
    follows = before in (";", "{", "}", "else") or (before == ")" and source.ends_condition(index - 1))
    word = token.kind == "name" and token.text not in KEYWORDS | MACROS
    if not follows or not (word or token.text in ("++", "--")):
        return False
    return source.in_function(index) and not source.in_initializers(index) and not in_for_head(source, index)


def in_for_head(source: Source, index: int) -> bool:
    at = index - 1
    while at >= 0 and source[at].text not in ("{", "}"):
        if source.closes(at):
            at = source.partner[at]
        elif source[at].text == "(":
            return source[at - 1].text == "for"
        at -= 1
    return False


def declares(source: Source, index: int) -> bool:
    """Whether the statement begins with a type: two names in a row, or a name after template arguments, * or &."""
    at = index
    while source[at + 1].text == "::" or source[at].text == "::":
        at += 1
    if source[at + 1].text == "<" and at + 1 in source.partner:
        at = source.partner[at + 1]
    after = source[at + 1]
    points = after.text in ("*", "&") and not source.is_binary(at + 1)
    return after.kind == "name" or points or source[index].text in ("auto", "typename")


def is_declared(source: Source, index: int) -> bool:
    """Whether the name is introduced here: after a type, as a member initializer, or before the = of a later declarator."""
    before, after = source[index - 1], source[index + 1].text
    if before.text in (".", "->", "::"):
        return False
    if before.kind == "name":
        return before.text not in ("return", "else", "case")
    if before.text in (">", "*", "&"):
        return not source.is_binary(index - 1)
    initialized = before.text in (":", ",") and after == "(" and source.in_initializers(index)
    return initialized or (before.text == "," and after == "=")
