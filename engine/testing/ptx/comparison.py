"""setp, set, selp, slct, testp and logic on predicates; PTX ISA 9.7.6 and 9.7.7."""

from __future__ import annotations

import numpy as np

from .integer import compute
from .registry import Step, opcode
from .rounding import flush, from_bf16
from .syntax import Instruction, Modifiers
from .values import DTYPES, PACKED, Array, is_float

ORDERED = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
UNORDERED = {f"{name}u": ORDERED[name] for name in ("eq", "ne", "lt", "le", "gt", "ge")}
COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def comparison(name: str, type: str):
    """Of two floats where one is NaN: false, or true for the comparisons that end in u."""
    if name in ("num", "nan"):
        return lambda x, y: (np.isnan(x) | np.isnan(y)) == (name == "nan")
    if not is_float(type) or name in ("eq", "lt", "le", "gt", "ge"):
        return ORDERED[name]
    if name == "ne":
        return lambda x, y: (x < y) | (x > y)
    return lambda x, y: UNORDERED[name](x, y) | np.isnan(x) | np.isnan(y)


@opcode("setp", "set")
def compare(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    name = modifiers.one_of(*ORDERED, *UNORDERED, "num", "nan")
    combine = modifiers.one_of(*COMBINE)
    flushes = modifiers.flag("ftz")
    result_type = "pred" if instruction.opcode == "setp" else modifiers.types(2)[0]
    type = modifiers.type() if instruction.opcode == "setp" else instruction.modifiers[-1]
    if name is None:
        raise instruction.unsupported("a known comparison needed")
    if type in ("f16x2", "bf16x2"):
        if instruction.opcode == "set" or combine or flushes:
            raise instruction.unsupported("a plain setp of two numbers needed")
        return compare_pair(machine, instruction, name, type)
    function = comparison(name, type)
    first, second = (
        machine.source(instruction, instruction.operands[1], type),
        machine.source(instruction, instruction.operands[2], type),
    )
    third = predicate_source(machine, instruction, instruction.operands[3]) if combine else None
    names = instruction.operands[0].split("|")
    targets = [machine.target(instruction, operand.strip(), result_type) for operand in names]
    true = {"pred": True, "f32": np.float32(1)}.get(result_type) or DTYPES[result_type].type(
        -1 if result_type[0] == "s" else 2**32 - 1
    )

    def step(active) -> None:
        x, y = (from_bf16(first), from_bf16(second)) if type == "bf16" else (first, second)
        if flushes:
            x, y = flush(x), flush(y)
        result = function(x, y)
        both = (result, ~result) if third is None else (COMBINE[combine](result, third()), COMBINE[combine](~result, third()))
        for target, value in zip(targets, both):
            np.copyto(target, value if true is True else np.where(value, true, true - true), where=active.where, casting="unsafe")

    return step


def compare_pair(machine, instruction: Instruction, name: str, type: str) -> Step:
    """A predicate for the low half, and one for the high half."""
    function = comparison(name, PACKED[type])
    sources = [machine.source(instruction, operand, type) for operand in instruction.operands[1:3]]
    targets = [machine.target(instruction, operand.strip(), "pred") for operand in instruction.operands[0].split("|")]

    def step(active) -> None:
        for i, target in enumerate(targets):
            halves = ((source >> np.uint32(16 * i)).astype(np.uint16) for source in sources)
            x, y = (from_bf16(half) if type == "bf16x2" else half.view(np.float16) for half in halves)
            np.copyto(target, function(x, y), where=active.where)

    return step


def predicate_source(machine, instruction: Instruction, operand: str):
    """A function that reads a predicate, which may be negated."""
    source = machine.source(instruction, operand.lstrip("!"), "pred")
    return (lambda: ~source) if operand.startswith("!") else (lambda: source)


@opcode("selp")
def select(machine, instruction: Instruction) -> Step:
    type = Modifiers(instruction).type()
    return compute(machine, instruction, [type, type, type, "pred"], lambda x, y, condition: np.where(condition, x, y))


@opcode("slct")
def select_by_sign(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    flushes = modifiers.flag("ftz")
    type, condition_type = modifiers.types(2)

    def function(x: Array, y: Array, condition: Array) -> Array:
        return np.where((flush(condition) if flushes else condition) >= 0, x, y)

    return compute(machine, instruction, [type, type, type, condition_type], function)


CLASSES = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda x: ~np.isnan(x),
    "notanumber": np.isnan,
    "normal": lambda x: np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).tiny),
    "subnormal": lambda x: (x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny),
}


@opcode("testp")
def classify(machine, instruction: Instruction) -> Step:
    modifiers = Modifiers(instruction)
    name = modifiers.one_of(*CLASSES)
    return compute(machine, instruction, ["pred", modifiers.type()], CLASSES[name])
