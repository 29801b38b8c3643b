"""The 8-bit and 4-bit floats of PTX; PTX ISA 5.2.3 and OCP Microscaling Formats 1.0, section 5.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rounding import narrow
from .values import Array


@dataclass(frozen=True)
class SmallFloat:
    """largest: code of the largest finite magnitude; nan: code of NaN, None where there is none; infinity: has infinities."""

    exponent_bits: int
    mantissa_bits: int
    largest: int
    nan: int | None
    infinity: bool = False

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    def table(self) -> Array:
        """The value of every code, float32."""
        code = np.arange(1 << self.bits)
        field = code >> self.mantissa_bits & ((1 << self.exponent_bits) - 1)
        mantissa = code & ((1 << self.mantissa_bits) - 1)
        bias = (1 << (self.exponent_bits - 1)) - 1
        value = np.ldexp(
            (mantissa + (field > 0) * (1 << self.mantissa_bits)).astype(float), np.maximum(field, 1) - bias - self.mantissa_bits
        )
        magnitude = code & ((1 << (self.bits - 1)) - 1)
        if self.nan is not None:
            value[magnitude > self.largest] = np.nan
            if self.infinity:
                value[magnitude == self.largest + 1] = np.inf
        return np.where(code >> (self.bits - 1), -value, value).astype(np.float32)


FORMATS = {
    "e4m3": SmallFloat(4, 3, 0x7E, 0x7F),
    "e5m2": SmallFloat(5, 2, 0x7B, 0x7F, True),
    "e2m1": SmallFloat(2, 1, 0x7, None),
    "ue8m0": SmallFloat(8, 0, 0xFE, 0xFF),
}
TABLES = {name: format.table() for name, format in FORMATS.items() if name != "ue8m0"}
# Powers of two: no sign, no zero, no mantissa.
TABLES["ue8m0"] = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
TABLES["ue4m3"] = np.abs(TABLES["e4m3"])


def decode(codes: Array, name: str) -> Array:
    """Codes to float32."""
    return TABLES[name][codes]


def encode(x: Array, name: str) -> Array:
    """float64 to codes: ties to even, clamped to the largest (.satfinite); NaN becomes the largest where a format has none."""
    format = FORMATS[name]
    code = np.minimum(narrow(x, format.exponent_bits, format.mantissa_bits), format.largest)
    code |= np.signbit(x).astype(np.int64) << (format.bits - 1)
    return np.where(np.isnan(x), format.largest if format.nan is None else format.nan, code).astype(np.uint8)
