"""Hold every CUDA kernel to its static gates: python bench/static_gates.py [--kernel STEM] [--arch 86] [--json OUT].

Compiles each file of csrc/cuda for each architecture it is built for, reads the machine code, prints a table and exits 1 when a
gate fails. The issue/tensor column is modelled, not measured. Needs nvcc, cuobjdump and nvdisasm, no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from halfbyte.testing.sass import GATES, Verdict, architectures, check

SOURCES = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
HEADINGS = ("arch", "kernel", "registers", "local", "in the loop", "instr.", "per entry", "issue/tensor (modelled)", "gates")


def chosen(built: dict[str, list[str]], stems: list[str], archs: list[str]) -> list[tuple[str, str]]:
    """(stem, arch) pairs. Raises ValueError for a kernel file or architecture that is not built."""
    for given, known in ((stems, built), (archs, {arch for each in built.values() for arch in each})):
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"{unknown[0]}: one of {', '.join(sorted(known))} is needed")
    return [(stem, arch) for stem, each in built.items() for arch in each if stem in (stems or built) and arch in (archs or each)]


def row(verdict: Verdict) -> list[str]:
    seen = verdict.report
    loop = seen.loop
    cells = [seen.arch, short(seen.name), str(seen.registers), f"{seen.spills} ({seen.stack} B)"]
    if loop:
        cells += [", ".join(f"{count} {opcode}" for opcode, count in loop.matrix.items()), str(loop.instructions)]
        cells += [f"{loop.per_entry:.2f}", f"{loop.ratio:.2f}" if loop.ratio else "-"]
    else:
        cells += ["-"] * 4
    return [*cells, "; ".join(verdict.failures) or "pass"]


def short(name: str) -> str:
    """A demangled name without its return type, namespace and parameters."""
    return name.removeprefix("void ").replace("halfbyte::", "").replace(" >", ">").rsplit("(", 1)[0]


def as_json(verdict: Verdict) -> dict[str, Any]:
    seen = verdict.report
    loop = seen.loop
    fields = {"kernel": seen.name, "arch": seen.arch, "registers": seen.registers, "static_shared_bytes": seen.shared}
    fields |= {"local_accesses": seen.spills, "stack_bytes": seen.stack, "matrix": seen.matrix, "failures": verdict.failures}
    if loop:
        fields["loop"] = {
            "instructions": loop.instructions,
            "classes": loop.classes,
            "matrix": loop.matrix,
            "depth": loop.depth,
            "accumulator_entries": loop.entries,
            "instructions_per_entry": loop.per_entry,
            "issue_over_tensor_modelled": loop.ratio,
        }
    return fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", action="append", default=[], help="stem of a file in csrc/cuda; all of them otherwise")
    parser.add_argument("--arch", action="append", default=[], help="such as 86 or 90a; all that are built otherwise")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    options = parser.parse_args()
    verdicts = []
    try:
        for stem, arch in chosen(architectures(SOURCES), options.kernel, options.arch):
            verdicts += check(SOURCES / f"{stem}.cu", arch, GATES)
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
    table = Table(*HEADINGS, box=None, pad_edge=False)
    for verdict in verdicts:
        table.add_row(*row(verdict), style="red" if verdict.failures else "")
    # Wide enough for template arguments where the output is a file.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if options.json:
        options.json.write_text(json.dumps([as_json(verdict) for verdict in verdicts], indent=1) + "\n")
    failed = [verdict for verdict in verdicts if verdict.failures]
    print(f"{len(verdicts)} kernels, {len(failed)} with failing gates")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
