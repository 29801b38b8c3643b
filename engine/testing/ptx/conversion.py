"""cvt between integers and floats, and packed conversions to 16, 8 and 4 bits; PTX ISA 9.7.9.21."""

from __future__ import annotations

import numpy as np

from .integer import compute
from .registry import Step, opcode
from .rounding import canonical, flush, from_bf16, round_f32, to_bf16, to_f16
from .small_floats import FORMATS, decode, encode
from .syntax import Instruction, Modifiers
from .values import DTYPES, PACKED, Array, is_float

TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
PAIRS = {"f16x2": "f16", "bf16x2": "bf16"} | {f"{name}x2": name for name in FORMATS}


@opcode("cvt")
def convert(machine, instruction: Instruction) -> Step:
    if "pack" in instruction.modifiers:
        return pack_integers(machine, instruction)
    modifiers = Modifiers(instruction)
    to_integer = modifiers.one_of(*TO_INTEGER)
    rounding = modifiers.one_of("rn", "rz", "rm", "rp") or "rn"
    flushes, saturates = modifiers.flag("ftz"), modifiers.flag("sat")
    finite, relu = modifiers.flag("satfinite"), modifiers.flag("relu")
    to, of = modifiers.types(2)
    if to in PAIRS and of in ("f32", "f64"):
        return pack(machine, instruction, to, of, rounding, finite, relu)
    if PAIRS.get(to) in FORMATS or PAIRS.get(of) in FORMATS:
        return convert_pair(machine, instruction, to, of, rounding, finite, relu)
    if finite or relu or to in PACKED or of in PACKED:
        raise instruction.unsupported(f"this cvt of .{of} to .{to} is not known here")
    if is_float(to) and is_float(of):
        function = float_to_float(to, of, to_integer, rounding, flushes, saturates)
    elif is_float(of):
        function = float_to_integer(to, of, to_integer, flushes)
    elif is_float(to):
        function = integer_to_float(to, rounding, instruction)
    else:
        function = integer_to_integer(to, saturates)
    return compute(machine, instruction, [to, of], function)


def widened(x: Array, of: str) -> Array:
    return (from_bf16(x) if of == "bf16" else x).astype(np.float64)


def narrowed(x: Array, to: str, rounding: str) -> Array:
    """An exact float64 to a float type."""
    if to in ("f16", "bf16"):
        if rounding not in ("rn", "rz"):
            raise NotImplementedError(f".{rounding} to .{to} is not known here")
        return (to_f16 if to == "f16" else to_bf16)(x, rounding == "rz")
    return canonical(round_f32(x, 0.0, rounding)) if to == "f32" else x


def float_to_float(to: str, of: str, to_integer: str | None, rounding: str, flushes: bool, saturates: bool):
    def function(x: Array) -> Array:
        value = widened(flush(x) if flushes and of == "f32" else x, of)
        if to_integer:
            value = TO_INTEGER[to_integer](value)
        if saturates:
            value = np.where(value > 0, np.minimum(value, 1.0), 0.0)
        result = narrowed(value, to, rounding)
        return flush(result) if flushes and to == "f32" else result

    return function


def float_to_integer(to: str, of: str, to_integer: str | None, flushes: bool):
    """Clamped to the integer's range; NaN gives 0."""
    info = np.iinfo(DTYPES[to])

    def function(x: Array) -> Array:
        value = TO_INTEGER[to_integer or "rzi"](widened(flush(x) if flushes else x, of))
        # The largest 64-bit integers are no float64, so they are put in after the conversion.
        above, below = value >= float(info.max), value <= float(info.min)
        inside = np.where(above | below | np.isnan(value), 0.0, value).astype(DTYPES[to])
        return np.where(above, info.max, np.where(below, info.min, inside)).astype(DTYPES[to])

    return function


def integer_to_float(to: str, rounding: str, instruction: Instruction):
    if rounding != "rn" and instruction.modifiers[-1].endswith("64"):
        raise instruction.unsupported("64-bit integers are rounded to nearest only here")
    if to in ("f32", "f64") and rounding == "rn":
        return lambda x: x.astype(DTYPES[to])
    return lambda x: narrowed(x.astype(np.float64), to, rounding)


def integer_to_integer(to: str, saturates: bool):
    info = np.iinfo(DTYPES[to])

    def clipped(x: Array) -> Array:
        low = np.maximum(x, x.dtype.type(max(info.min, np.iinfo(x.dtype).min)))
        return np.minimum(low, x.dtype.type(min(info.max, np.iinfo(x.dtype).max)))

    return (lambda x: clipped(x).astype(DTYPES[to])) if saturates else (lambda x: x.astype(DTYPES[to]))


def to_element(x: Array, element: str, rounding: str, finite: bool) -> Array:
    """float64 to the bits of a 16-bit or narrower float."""
    if element in FORMATS:
        return encode(x, element)
    bits = np.ascontiguousarray(narrowed(x, element, rounding)).view(np.uint16)
    if finite:
        largest = np.uint16(0x7BFF if element == "f16" else 0x7F7F)
        bits = np.where(np.isnan(x) | (bits & 0x7FFF <= largest), bits, largest | (bits & 0x8000)).astype(np.uint16)
    return bits


def joined(high: Array, low: Array, element: str) -> Array:
    bits = FORMATS[element].bits if element in FORMATS else 16
    return high.astype(np.uint32) << np.uint32(bits) | low


def pack(machine, instruction: Instruction, to: str, of: str, rounding: str, finite: bool, relu: bool) -> Step:
    """Two floats; the first goes into the upper half."""
    element = PAIRS[to]

    def function(high: Array, low: Array) -> Array:
        values = [np.where(v < 0, 0.0, v.astype(np.float64)) if relu else v.astype(np.float64) for v in (high, low)]
        return joined(*(to_element(value, element, rounding, finite) for value in values), element)

    return compute(machine, instruction, [to, of, of], function)


def convert_pair(machine, instruction: Instruction, to: str, of: str, rounding: str, finite: bool, relu: bool) -> Step:
    """A pair of narrow floats to a pair of 16-bit ones, or back."""
    element, source = PAIRS[to], PAIRS[of]

    def halves(x: Array) -> list[Array]:
        bits = FORMATS[source].bits if source in FORMATS else 16
        parts = [(x >> x.dtype.type(bits)), x & x.dtype.type((1 << bits) - 1)]
        if source in FORMATS:
            return [decode(part, source).astype(np.float64) for part in parts]
        return [widened(part.astype(np.uint16).view(DTYPES[source]), source) for part in parts]

    def function(x: Array) -> Array:
        values = [np.where(value < 0, 0.0, value) if relu else value for value in halves(x)]
        return joined(*(to_element(value, element, rounding, finite) for value in values), element)

    return compute(machine, instruction, [to, of], function)


def pack_integers(machine, instruction: Instruction) -> Step:
    """cvt.pack.sat: two s32, saturated, with a third operand's low bits above them."""
    modifiers = Modifiers(instruction)
    if not (modifiers.flag("pack") and modifiers.flag("sat")):
        raise instruction.unsupported("cvt.pack.sat needed")
    fills = modifiers.one_of("b32") is not None
    to, of = modifiers.types(2)
    bits = int(to[1:])
    clip, mask = integer_to_integer(to, True), np.uint32((1 << bits) - 1)

    def function(high: Array, low: Array, above: Array | None = None) -> Array:
        pair = ((clip(high).astype(np.uint32) & mask) << np.uint32(bits)) | (clip(low).astype(np.uint32) & mask)
        return pair if above is None else pair | (above << np.uint32(2 * bits))

    return compute(machine, instruction, ["b32", of, of, *(["b32"] if fills else [])], function)


@opcode("cvta")
def convert_address(machine, instruction: Instruction) -> Step:
    """Between generic addresses and those of shared and local memory, which generic addressing shows in windows of their own."""
    from .memory import LOCAL_WINDOW, SHARED_WINDOW

    modifiers = Modifiers(instruction)
    back = modifiers.flag("to")
    space = modifiers.one_of("global", "shared", "shared::cta", "local", "const", "param")
    type = modifiers.type()
    window = {"shared": SHARED_WINDOW, "shared::cta": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(space, 0)
    if space is None or type != "u64":
        raise instruction.unsupported("64-bit addresses of a known state space needed")
    move = np.uint64(window)
    return compute(machine, instruction, ["u64", "u64"], lambda x: x - move if back else x + move)
