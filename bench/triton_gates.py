"""Compile the Triton kernels for GPUs that are not here: python bench/triton_gates.py [--op NAME] [--arch 90] [--quick].

Each op is called at sizes of real layers, everything it would launch is compiled, and the machine code is read: registers, local
and shared memory, matrix instructions. Prints a table and exits 1 when a gate fails; --json OUT keeps it. Needs Triton, cuobjdump
and nvdisasm, no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from halfbyte.ops.triton.register import TABLES
from halfbyte.testing import Shape
from halfbyte.testing.triton import CAPABILITIES, Compiled, compile_calls, empty_calls, failures, one_of_each_kind

HEADINGS = ("arch", "op", "call", "kernel", "registers", "local", "shared", "instructions", "s")
# One token, a small image, and a layer of FLUX.
SHAPES = (Shape("one row", 1, 9216, 3072), Shape("short", 256, 1280, 1280), Shape("flux.attention_out", 4096, 3072, 3072))
ROWS_MATTER = {"gemm_w4a16"}
# The architecture on which --quick compiles one call of each kind; on others it is one call of each op.
EVERY_KIND = 90


def compiled(op: str, arch: int, quick: bool) -> list[Compiled]:
    found = []
    for shape in SHAPES:
        if quick and shape is not SHAPES[-1] and not (op in ROWS_MATTER and shape is SHAPES[0]):
            continue
        calls = empty_calls(op, shape)
        if quick and arch == EVERY_KIND:
            calls = one_of_each_kind(calls)
        if not quick or arch == EVERY_KIND:
            found += compile_calls(op, calls, arch)
        else:  # the last that this GPU takes
            found += next(filter(None, (list(compile_calls(op, {name: calls[name]}, arch)) for name in reversed(calls))), [])
    return list({kernel.cubin: kernel for kernel in found}.values())


def row(kernel: Compiled, disassemble: bool) -> list[str]:
    registers, local = kernel.resources
    matrix = ", ".join(f"{count} {opcode}" for opcode, count in kernel.report.matrix.items()) if disassemble else "-"
    cells = (f"sm_{kernel.capability}", kernel.op, kernel.call, kernel.kernel, registers, local, kernel.shared, matrix)
    return [*map(str, cells), f"{kernel.seconds:.1f}"]


def main() -> None:
    every = [op for table in TABLES.values() for op in table]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=every, help="all of them otherwise")
    parser.add_argument("--arch", action="append", type=int, choices=CAPABILITIES, help="such as 90; all of them otherwise")
    parser.add_argument("--quick", action="store_true", help="fewer calls, and no disassembly but for the gates")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    options = parser.parse_args()
    table, broken, facts, began = Table(*HEADINGS, box=None, pad_edge=False), [], [], time.perf_counter()
    for arch in options.arch or CAPABILITIES:
        for op in options.op or every:
            kernels = compiled(op, arch, options.quick)
            broken += failures(kernels)
            for kernel in kernels:
                table.add_row(*row(kernel, not options.quick))
                registers, local = kernel.resources
                fact = {"op": op, "call": kernel.call, "kernel": kernel.kernel, "arch": arch, "registers": registers}
                facts.append(fact | {"local_bytes": local, "shared_bytes": kernel.shared, "seconds": round(kernel.seconds, 2)})
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print("\n".join(broken) or "every gate holds")
    print(f"{len(facts)} kernels of {len(options.op or every)} ops, {time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"kernels": facts, "failures": broken}, indent=1) + "\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
