"""The table of static gates: what the machine code of each kernel must show. Every kernel, listed or not, must keep off local memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """source: stem of the file in csrc/cuda; kernel: regular expression found in the demangled names it is about.

    opcode: how the matrix opcode of the steady-state loop begins; max_per_entry: instructions of that loop for each accumulator entry
    that it updates in one step of K; inner_iterations: how often the innermost loop runs in each iteration of the one around it, when that
    is the steady-state loop; max_depth: loops nested around and including it.
    """

    source: str
    kernel: str
    archs: tuple[str, ...]
    opcode: str = ""
    max_registers: int = 255
    max_per_entry: float | None = None
    inner_iterations: int = 1
    max_depth: int = 1


GATES: tuple[Gate, ...] = ()
