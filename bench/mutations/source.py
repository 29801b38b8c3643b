"""C++ source as tokens, with what the rules ask about them: brackets, operands, statements, the switchable expression around."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<directive>^[ \t]*\#(?:[^\n\\]|\\.|\\\n)*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<number>(?:0[xX][0-9a-fA-F.']+(?:[pP][+-]?\d+)?|(?:\d[\d']*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[uUlLfF]*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark><<=|>>=|\.\.\.|->|\+\+|--|<<|(?<=\s)>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|::|.)""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
PRECEDENCE = {
    **dict.fromkeys("*/%", 10), **dict.fromkeys("+-", 9), "<<": 8, ">>": 8, **dict.fromkeys(("<", "<=", ">", ">="), 7),
    "==": 6, "!=": 6, "&": 5, "^": 4, "|": 3, "&&": 2, "||": 1,
}  # fmt: skip
ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
OPENING, CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}, {")", "]", "}", ">"}
SEPARATORS = {",", ";", "?", ":", "return", "else", "UNROLL", "ROLLED"} | ASSIGNMENTS
KEYWORDS_BEFORE = {"return", "template", "case"}  # of an operand, not operands themselves
FOR_THE_COMPILER = {"LAUNCH_BOUNDS", "UNROLL_BY"}
TYPES = {"integral_constant", "TypeTag"}  # two of them have no common type
CONSTANT = {"static_assert", "using", "template", "enum", "case"}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class Source:
    """path: as mutants name it. The code between directives that the host shim's build skips has no tokens."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.tokens: list[Token] = []
        self._scan()

    def _scan(self) -> None:
        compiled = [True]
        for found in TOKEN.finditer(self.text):
            kind, text, start = found.lastgroup, found.group(), found.start()
            if kind == "directive":
                self._follow(text.split(), compiled)
            elif all(compiled) and kind != "comment" and not text.isspace():
                self.tokens.append(Token(kind, text, start))

    @staticmethod
    def _follow(words: list[str], compiled: list[bool]) -> None:
        directive, rest = words[0], " ".join(words[1:])
        if directive in ("#if", "#ifdef", "#ifndef"):
            compiled.append("__CUDA_ARCH" not in rest and (directive == "#ifndef") != ("HALFBYTE_SIMT" in rest))
        elif directive in ("#else", "#elif"):
            compiled[-1] = not compiled[-1]
        elif directive == "#endif":
            compiled.pop()

    def __getitem__(self, index: int) -> Token:
        return self.tokens[index]

    def line_of(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def spaced(self, index: int) -> bool:
        """Whether there is space on both sides, which the style puts around binary operators and nothing else."""
        token = self[index]
        return self.text[token.start - 1].isspace() and self.text[token.end].isspace()

    def is_binary(self, index: int) -> bool:
        before = self[index - 1]
        operand = before.kind in ("number", "name", "string") or before.text in (")", "]", "}", ">")
        return self[index].text in PRECEDENCE and self.spaced(index) and operand and before.text not in KEYWORDS_BEFORE

    @cached_property
    def partner(self) -> dict[int, int]:
        """Index of each bracket's other end. Angle brackets are those without space before them."""
        pairs, open_ = {}, []
        for index, token in enumerate(self.tokens):
            if token.text in OPENING and not (token.text == "<" and self.is_comparison(index)):
                open_.append(index)
            elif token.text in CLOSING and not (token.text == ">" and self.is_comparison(index)):
                pairs[index] = open_.pop()
                pairs[pairs[index]] = index
        return pairs

    def is_comparison(self, index: int) -> bool:
        return self.spaced(index) and self[index - 1].text != "template"

    def statement(self, index: int) -> int:
        """Index of the first token of the statement or clause that the token belongs to."""
        while index and self[index - 1].text not in (";", "{", "}"):
            index -= 1
        return index

    @cached_property
    def _headers(self) -> list[tuple[int, int, list[str]]]:
        blocks = []
        for index, token in enumerate(self.tokens):
            if token.text == "{":
                header = [t.text for t in self.tokens[self.statement(index) : index]]
                blocks.append((index, self.partner[index], header))
        return blocks

    def names_in_reach(self, index: int) -> set[str]:
        """Names that stand before a token in the blocks around it: what was declared in blocks that have ended is gone."""
        names = set()
        for begin, end, header in self._headers:
            if begin < index < end and "namespace" not in header:
                at = index
                while at > self.statement(begin):
                    at = self.partner[at] if self[at].text == "}" else at - 1
                    names.add(self[at].text)
                break
        return names

    def around(self, index: int) -> list[list[str]]:
        """The words before each opening brace that the token stands in, outermost first."""
        return [header for begin, end, header in self._headers if begin < index < end]

    def in_function(self, index: int) -> bool:
        return any("(" in header for header in self.around(index)) or self.in_initializers(index)

    def in_initializers(self, index: int) -> bool:
        """Whether in the member initializers of a constructor."""
        words = [token.text for token in self.tokens[self.statement(index) : index]]
        return ":" in words and ")" in words[: words.index(":")]

    def is_constant(self, index: int) -> bool:
        """Whether the compiler needs the value: no switch at run time can stand there."""
        words = [token.text for token in self.tokens[self.statement(index) : index]]
        if words[:1] == ["case"] and ":" in words:
            words = words[words.index(":") + 1 :]
        if "constexpr" in words or CONSTANT & set(words[:1]) or self.is_array_bound(index) or not self.in_function(index):
            return True
        angle = self.angle_around(index)
        if angle is not None and self[angle - 1].text in TYPES:
            return True
        return any("constexpr" in header and "if" not in header for header in self.around(index))

    def is_for_the_compiler(self, index: int) -> bool:
        """Whether in an assertion at compile time, or in a hint that changes no result."""
        if self[self.statement(index)].text == "static_assert":
            return True
        hints = (at + 1 for at, token in enumerate(self.tokens) if token.text in FOR_THE_COMPILER)
        return any(at < index < self.partner[at] for at in hints)

    def closes(self, index: int) -> bool:
        return index in self.partner and self.partner[index] < index

    def top_level(self, first: int, end: int) -> Iterator[int]:
        """Tokens first..end - 1 without those between brackets."""
        while first < end:
            yield first
            first = max(self.partner.get(first, first), first) + 1

    def is_array_bound(self, index: int) -> bool:
        """Whether the token stands between the brackets of an array's declaration."""
        at = index - 1
        while self.closes(at) or (at not in self.partner and self[at].text != ";"):
            at = self.partner.get(at, at) - 1
        if self[at].text != "[":
            return False
        while self[at - 1].text == "]":
            at = self.partner[at - 1]
        array, before = self[at - 1], self[at - 2]
        return array.text == ")" or (array.kind == "name" and (before.kind == "name" or before.text == ">"))

    def operand(self, index: int, step: int) -> tuple[int, int]:
        """First and last token of the left (step -1) or right (step 1) operand of a binary operator."""
        own = PRECEDENCE[self[index].text]
        at = index + step
        last = at
        while True:
            token = self[at].text
            if at in self.partner and (token in CLOSING) == (step < 0):
                at = self.partner[at]
            elif at in self.partner or token in SEPARATORS or token == "}":
                break
            elif self.is_binary(at) and (PRECEDENCE[token] < own or (step > 0 and PRECEDENCE[token] == own)):
                break
            last = at
            at += step
        return (last, index - 1) if step < 0 else (index + 1, last)

    def expression(self, first: int, last: int) -> tuple[int, int]:
        """First and last token of the smallest whole expression around a range of tokens, outside of template arguments."""
        while True:
            first, last = self._until(first, -1), self._until(last, 1)
            if self[first - 1].text == "<" and first - 1 in self.partner:
                first, last = first - 1, self.partner[first - 1]
            elif self[last + 1].text == ">" and last + 1 in self.partner:
                first, last = self.partner[last + 1], last + 1
            elif first - 1 > 0 and self[first - 1].text == "," and (angle := self.angle_around(first)) is not None:
                first, last = angle, self.partner[angle]
            else:
                return first, last

    def angle_around(self, index: int) -> int | None:
        at = index - 1
        while at >= 0:
            if self.closes(at):
                at = self.partner[at]
            elif at in self.partner:
                return at if self[at].text == "<" else None
            elif self[at].text == ";":
                return None
            at -= 1
        return None

    def _until(self, index: int, step: int) -> int:
        while True:
            at = index + step
            token = self[at].text
            if token == "{" and step > 0 and self[index].kind == "name":  # Type{...}
                index = self.partner[at]
            elif token == "}" and step < 0 and self[self.partner[at] - 1].kind == "name" and self[index].text != ";":
                index = self.partner[at] if self._is_value(self.partner[at]) else index
                if not self._is_value(self.partner[at]):
                    return index
            elif token in ("{", "}") or token in SEPARATORS:
                return index
            elif at in self.partner:
                if (token in CLOSING) != (step < 0):
                    return index
                index = self.partner[at]
                if step < 0 and self.ends_condition(at):
                    return at + 1
            else:
                index = at

    def _is_value(self, brace: int) -> bool:
        """Whether the brace opens a value such as Words2{0, 0} and not a block."""
        return self.text[self[brace].start - 1] != " "

    def ends_condition(self, index: int) -> bool:
        """Whether the bracket ends the head of an if, for or while, after which a statement stands."""
        return self[index].text == ")" and self[self.partner[index] - 1].text in ("if", "for", "while", "constexpr")

    def piece(self, first: int, last: int) -> str:
        return self.text[self[first].start : self[last].end]
