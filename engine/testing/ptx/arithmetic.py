"""Which arithmetic a type asks for: the opcodes that integers and floats share, and those of floats alone."""

from __future__ import annotations

from . import floating, integer
from .registry import Step, opcode
from .syntax import Instruction, Modifiers
from .values import is_float


@opcode("add", "sub", "mul", "mad", "div", "rem", "min", "max", "neg", "abs")
def arithmetic(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    if is_float(modifiers.left[-1]):
        return floating.floating(machine, instruction, modifiers)
    if instruction.opcode in ("mul", "mad"):
        return integer.multiply(machine, instruction, modifiers)
    return integer.integer(machine, instruction, modifiers)


@opcode("fma", "copysign", *floating.FUNCTIONS)
def float_only(machine, instruction: Instruction) -> Step:
    return floating.floating(machine, instruction, Modifiers(instruction))
