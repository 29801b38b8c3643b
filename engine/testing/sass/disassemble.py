"""A cubin to its kernels: instructions, out-of-line subroutines and resources, as NVIDIA's disassemblers print them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .tools import run

BYTES = 16
INDIRECT = {"BRX", "BRXU", "JMX", "JMXU"}
RESOURCES = re.compile(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Instruction:
    """offset: bytes from the start of the kernel; predicate: such as @!P0, or empty."""

    offset: int
    opcode: str
    operands: str
    predicate: str

    @property
    def base(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def target(self) -> int | None:
        """The offset that a direct jump names as its last operand."""
        last = self.operands.rsplit(",", 1)[-1]
        return int(last, 16) if last.startswith("0x") else None


@dataclass(frozen=True)
class Kernel:
    """name: demangled; stack, shared and local in bytes.

    subroutines: symbol -> (first, past the last) offset; jump_tables: offset of an indirect jump -> offsets it may go to.
    """

    name: str
    instructions: tuple[Instruction, ...]
    subroutines: dict[str, tuple[int, int]]
    jump_tables: dict[int, frozenset[int]]
    registers: int
    stack: int
    shared: int
    local: int


def kernels(cubin: Path) -> list[Kernel]:
    """Every kernel of the file. Raises ToolMissing without the disassemblers."""
    resources = {name: tuple(map(int, numbers)) for name, *numbers in RESOURCES.findall(run("cuobjdump", "-res-usage", cubin))}
    found = []
    symbols, tables = _symbols(cubin), _jump_tables(cubin)
    for section in json.loads(run("nvdisasm", "-json", cubin))[1]:
        name = section["function-name"]
        registers, stack, shared, local = resources[name]
        own = symbols[name][0]
        subroutines = {other: span for other, (place, span) in symbols.items() if place == own and other != name}
        instructions = tuple(
            Instruction(BYTES * i, each["opcode"], each.get("operands", ""), each.get("predicate", ""))
            for i, each in enumerate(section["sass-instructions"])
        )
        found.append(Kernel(demangled(name), instructions, subroutines, tables[name], registers, stack, shared, local))
    return found


def demangled(symbol: str) -> str:
    return run("c++filt", symbol).strip()


def _jump_tables(cubin: Path) -> dict[str, dict[int, frozenset[int]]]:
    """Kernel symbol -> its jump_tables, which only the plain listing shows, as labels."""
    tables: dict[str, dict[int, list[str]]] = {}
    labels: dict[str, int] = {}
    waiting: list[str] = []
    for line in run("nvdisasm", "-c", cubin).splitlines():
        if match := re.match(r"\s*\.section\s+\.text\.([^,]+)", line):
            own = tables[match.group(1)] = {}
        elif match := re.match(r"(\.L_x_\d+):", line):
            waiting.append(match.group(1))
        elif match := re.match(r"\s*/\*([0-9a-f]+)\*/\s+(.*)", line):
            offset = int(match.group(1), 16)
            labels |= dict.fromkeys(waiting, offset)
            waiting = []
            if targets := re.search(r"BRANCH_TARGETS ([^\"]+)", match.group(2)):
                own[offset] = targets.group(1).split(",")
    return {
        name: {offset: frozenset(labels[each] for each in targets) for offset, targets in table.items()}
        for name, table in tables.items()
    }


def _symbols(cubin: Path) -> dict[str, tuple[str, tuple[int, int]]]:
    """Function symbol -> (section, (first, past the last) offset in it)."""
    symbols = {}
    for line in run("readelf", "-sW", cubin).splitlines():
        # An annotation such as [<other>: 10] may stand between visibility and section.
        if match := re.match(r"\s*\d+: ([0-9a-f]+)\s+(\w+) FUNC .*?(\d+) (\S+)$", line):
            value, size, section, name = match.groups()
            symbols[name] = (section, (int(value, 16), int(value, 16) + int(size, 0)))
    return symbols
