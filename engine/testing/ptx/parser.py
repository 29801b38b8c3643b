"""PTX text to Module. Grammar: PTX ISA, chapters 4 (syntax), 5 (state spaces) and 11 (directives)."""

from __future__ import annotations

import math
import re
import struct
from bisect import bisect_left
from dataclasses import replace

from .syntax import Instruction, Kernel, Module, UnsupportedPtx, Variable

NAME = r"[\w$%]+"
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
DECLARATION = re.compile(
    rf"\.(?P<space>global|const|shared|local|param)(?P<before>(?:\s+\.(?:align\s+\d+|ptr|space|global|const|shared|local))*)"
    rf"\s+\.(?P<type>[bsuf])(?P<width>8|16|32|64)(?P<after>(?:\s+\.(?:align\s+\d+|ptr|global|const|shared|local))*)"
    rf"\s+(?P<name>{NAME})\s*(?P<array>(?:\[\d*\])*)\s*(?:=\s*(?P<initial>.*))?$",
    re.S,
)
LABEL = re.compile(rf"({NAME})\s*:(?!:)\s*")
GUARD = re.compile(r"@(!?)([\w$%#]+)\s+")
OPERANDS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,\s][^,]*")
# Directives that end with their line, not with a semicolon.
LINE_DIRECTIVE = re.compile(
    r"\.(?:loc|file|version|target|address_size|maxnreg|maxntid|reqntid|minnctapersm|noreturn|explicitcluster|reqnctapercluster"
    r"|maxclusterrank)\b[^\n]*"
)
LINKAGE = re.compile(r"(?:\.(?:visible|extern|weak|common)\s+)+")


def entry_names(text: str) -> list[str]:
    """The entries of a module's text, unparsed."""
    return re.findall(rf"^\s*(?:\.visible\s+|\.weak\s+)?\.entry\s+({NAME})", text, re.M)


def parse(text: str, only: str | None = None) -> Module:
    """Read a module's text, of its entries all or one. Raises UnsupportedPtx for what is outside of the grammar known here."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", lambda match: re.sub(r"[^\n]", " ", match.group()), text, flags=re.S)
    target = re.search(r"\.target\s+(\w+)", text)
    if target is None:
        raise UnsupportedPtx("PTX text with a .target needed")
    return _Reader(text).module(target.group(1), only)


def variable(text: str, line: int) -> Variable:
    """One declaration without its semicolon."""
    match = DECLARATION.match(text.strip())
    if match is None:
        raise UnsupportedPtx(f"PTX line {line}: a declaration needed, got {text.strip()!r}")
    element = BYTES[match["width"]]
    count = 1
    for extent in re.findall(r"\[(\d*)\]", match["array"]):
        count *= int(extent or 0)
    # The alignment after .ptr is that of what the pointer points to.
    align = re.search(r"\.align\s+(\d+)", match["before"])
    initial = _initial(match["initial"], match["type"], element, element * count, line) if match["initial"] else None
    return Variable(match["name"], match["space"], int(align.group(1)) if align else element, element * count, initial)


def _initial(text: str, type: str, element: int, size: int, line: int) -> bytes:
    values = text.strip().strip("{}").replace("{", "").replace("}", "").split(",")
    data = b""
    for value in (value.strip() for value in values if value.strip()):
        if float_bits := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", value):
            number = int(float_bits.group(1), 16)
        elif type == "f":
            number = struct.unpack("<I" if element == 4 else "<Q", struct.pack("<f" if element == 4 else "<d", float(value)))[0]
        elif re.fullmatch(r"-?\d+U?|0[xX][0-9a-fA-F]+U?", value):
            number = int(value.rstrip("U"), 0)
        else:
            raise UnsupportedPtx(f"PTX line {line}: a number needed in an initialiser, got {value!r}")
        data += (number & ((1 << 8 * element) - 1)).to_bytes(element, "little")
    return data.ljust(size, b"\0")


class _Scope(dict[str, str]):
    """Names declared between two braces -> names unique in the kernel; inline assembly reuses names in scopes of its own.

    labels: the same of its labels; first: the number of its first instruction.
    """

    def __init__(self, number: int, first: int) -> None:
        super().__init__()
        self.number, self.first = number, first
        self.labels: dict[str, str] = {}

    def declare(self, name: str) -> str:
        self[name] = name if self.number == 0 else f"{name}#{self.number}"
        return self[name]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.ends_of_lines = [match.start() for match in re.finditer("\n", text)]

    def line(self) -> int:
        return bisect_left(self.ends_of_lines, self.at) + 1

    def skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Advance over white space, then over pattern where it matches."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def until(self, end: str) -> str:
        start = self.at
        self.at = self.text.index(end, start) + 1
        return self.text[start : self.at - 1]

    def module(self, target: str, only: str | None) -> Module:
        module = Module(target, [], {})
        while self.skip(re.compile(r"")) and self.at < len(self.text):
            if self.skip(LINE_DIRECTIVE):
                continue
            self.skip(LINKAGE)
            line = self.line()
            if self.skip(re.compile(r"\.entry\s+")):
                kernel = self.entry()
                if only not in (None, kernel.name):
                    self.skip_body()
                    continue
                self.body(kernel)
                module.entries[kernel.name] = kernel
            elif self.skip(re.compile(r"\.func\b")):
                raise UnsupportedPtx(f"PTX line {line}: a function that the compiler did not inline")
            elif self.skip(re.compile(r"\.section\b")):
                self.until("}")
            else:
                module.variables.append(variable(self.until(";"), line))
        return module

    def entry(self) -> Kernel:
        kernel = Kernel(self.skip(re.compile(NAME)).group())
        if self.skip(re.compile(r"\(")):
            line = self.line()
            kernel.parameters = [variable(text, line) for text in self.until(")").split(",") if text.strip()]
        while directive := self.skip(LINE_DIRECTIVE):
            extents = [int(extent) for extent in re.findall(r"\d+", directive.group())]
            if directive.group().startswith((".maxntid", ".reqntid")):
                kernel.max_threads = math.prod(extents)
            elif directive.group().startswith(".reqnctapercluster"):
                kernel.cluster = (*extents, 1, 1)[:3]
        return kernel

    def skip_body(self) -> None:
        depth = 0
        for brace in re.compile(r"[{}]").finditer(self.text, self.at):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                self.at = brace.end()
                return

    def body(self, kernel: Kernel) -> None:
        scopes: list[_Scope] = []
        opened = 0
        while True:
            if self.skip(re.compile(r"\{")):
                scopes.append(_Scope(opened, len(kernel.instructions)))
                opened += 1
            elif self.skip(re.compile(r"\}")):
                self.close(kernel, scopes.pop())
                if not scopes:
                    return
            elif self.skip(LINE_DIRECTIVE):
                continue
            elif label := self.skip(LABEL):
                self.label(kernel, label.group(1), scopes[-1])
            else:
                line, statement = self.line(), " ".join(self.until(";").split())
                self.statement(kernel, statement, line, scopes)

    def close(self, kernel: Kernel, scope: _Scope) -> None:
        """Branches within a scope lead to its own labels, also to those that follow."""
        for index in range(scope.first, len(kernel.instructions) if scope.labels else 0):
            one = kernel.instructions[index]
            if one.opcode == "bra" and one.operands[0] in scope.labels:
                kernel.instructions[index] = replace(one, operands=(scope.labels[one.operands[0]],))

    def label(self, kernel: Kernel, name: str, scope: _Scope) -> None:
        if scope.number:
            name = scope.labels.setdefault(name, f"{name}#{scope.number}")
        if self.skip(re.compile(r"\.branchtargets\s+")):
            kernel.branch_targets[name] = [target.strip() for target in self.until(";").split(",")]
        elif name in kernel.labels:
            raise UnsupportedPtx(f"PTX line {self.line()}: label {name} a second time")
        else:
            kernel.labels[name] = len(kernel.instructions)

    def statement(self, kernel: Kernel, text: str, line: int, scopes: list[_Scope]) -> None:
        if text.startswith(".reg"):
            _, type, names = text.split(" ", 2)
            for name in register_names(names):
                kernel.registers[scopes[-1].declare(name)] = type.lstrip(".")
        elif text.startswith((".local", ".shared")):
            kernel.variables.append(variable(text, line))
        elif text and not text.startswith(".pragma"):
            kernel.instructions.append(instruction(text, line, scopes))


def register_names(text: str) -> list[str]:
    names = []
    for name in (part.strip() for part in text.split(",")):
        many = re.fullmatch(rf"({NAME})<(\d+)>", name)
        names += [f"{many.group(1)}{index}" for index in range(int(many.group(2)))] if many else [name]
    return names


def scoped_name(name: str, scopes: list[_Scope]) -> str:
    return next((scope[name] for scope in reversed(scopes) if name in scope), name)


def instruction(text: str, line: int, scopes: list[_Scope]) -> Instruction:
    statement = re.sub(NAME, lambda name: scoped_name(name.group(), scopes[1:]), text) if len(scopes) > 1 else text
    predicate = None
    if guard := GUARD.match(statement):
        predicate, statement = (guard.group(2), guard.group(1) == "!"), statement[guard.end() :]
    operation, _, rest = statement.partition(" ")
    opcode, *modifiers = operation.split(".")
    operands = tuple(operand.strip() for operand in OPERANDS.findall(rest))
    return Instruction(line, text, opcode, tuple(modifiers), operands, predicate)
