"""Types, constants and the register file; PTX ISA 5.2 (types) and 4.5 (constants)."""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

# bf16 has no numpy type, so it stays in its bits; packed types are seen as what holds both.
DTYPES = {
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{"bf16": np.dtype("u2"), "f16x2": np.dtype("u4"), "bf16x2": np.dtype("u4"), "f32x2": np.dtype("u8")},
    **{"e4m3x2": np.dtype("u2"), "e5m2x2": np.dtype("u2"), "e2m1x2": np.dtype("u1"), "pred": np.dtype(np.bool_)},
}
PACKED = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}
POISON = 0xCD


def is_float(type: str) -> bool:
    return type[0] == "f" or type.startswith("bf")


def constant(text: str, type: str) -> np.generic | None:
    """The value of a literal in a type, None for text that is no literal."""
    dtype = DTYPES[type]
    if text == "WARP_SZ":
        text = "32"
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", text):
        body = text.rstrip("U")
        octal = re.fullmatch(r"-?0[0-7]+", body)
        value = int(body, 8 if octal else 0)
        if type == "pred":
            return np.bool_(value)
        if type[0] == "f" and type not in PACKED:
            return dtype.type(value)
        return np.array(value & ((1 << 8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype)[()]
    if bits := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        single, double = bits.groups()
        if dtype.kind != "f":
            return np.array(int(single or double, 16), f"u{dtype.itemsize}")[()]
        value = struct.unpack(">f", bytes.fromhex(single))[0] if single else struct.unpack(">d", bytes.fromhex(double))[0]
        return dtype.type(value)
    if re.fullmatch(r"-?\d+\.\d*([eE][+-]?\d+)?", text) and dtype.kind == "f":
        return dtype.type(float(text))
    return None


class Registers:
    """Registers as arrays of one value per lane, made when they are first named: a launch uses few of a kernel's thousands."""

    def __init__(self, types: dict[str, str], lanes: int) -> None:
        self.types, self.lanes = types, lanes
        self.rows: dict[str, Array] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def row(self, name: str) -> Array:
        if name not in self.rows:
            dtype = DTYPES[self.types[name]]
            self.rows[name] = np.empty(self.lanes, dtype if dtype == np.bool_ else f"u{dtype.itemsize}")
            poison(self.rows[name])
        return self.rows[name]

    def poison(self) -> None:
        for row in self.rows.values():
            poison(row)

    def source(self, name: str, type: str) -> Array:
        """A view of a register in a type of its size, or of its low bits in a narrower type."""
        row, dtype = self.row(name), DTYPES[type]
        if (row.dtype == np.bool_) != (type == "pred") or dtype.itemsize > row.dtype.itemsize:
            raise ValueError(f"register {name} is .{self.types[name]}, not .{type}")
        return row.view(dtype)[:: row.dtype.itemsize // dtype.itemsize]

    def target(self, name: str, type: str) -> Array:
        """A view to write a register through: narrower values are extended to it by their sign, as PTX ISA 9.4.1 asks."""
        row, dtype = self.row(name), DTYPES[type]
        if (row.dtype == np.bool_) != (type == "pred") or dtype.itemsize > row.dtype.itemsize:
            raise ValueError(f"register {name} is .{self.types[name]}, not .{type}")
        if row.dtype == np.bool_ or row.dtype.itemsize == dtype.itemsize:
            return row.view(dtype)
        if dtype.kind == "f":
            raise ValueError(f"register {name} is .{self.types[name]}, not .{type}")
        return row.view(f"{dtype.kind}{row.dtype.itemsize}")


def poison(row: Array) -> None:
    if row.dtype == np.bool_:
        row[:] = False
    else:
        row.view(np.uint8)[:] = POISON
