"""Launches of Triton kernels run on the PTX that Triton makes of them, by the interpreter of `halfbyte.testing.ptx`."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..ptx import Memory, launch, parse
from .target import compiling_for

FORMATS = {"u64": "Q", "b64": "Q", "s64": "q", "u32": "I", "b32": "I", "s32": "i", "f32": "f", "u8": "B", "s8": "b", "b8": "B"}


def run(kernel: Any, grid: tuple[int, ...], values: list[Any], label: str) -> None:
    """Run Triton's CompiledKernel on tensors in the CPU's memory; values: what it was launched with, constants left out."""
    ptx = kernel.asm["ptx"]
    entry, parameters = re.search(r"\.entry (\w+)\(([^)]*)\)", ptx).groups()
    types = re.findall(r"\.param \.(\w+)", parameters)
    tensors = {f"argument {i}": value for i, value in enumerate(values) if isinstance(value, Tensor) and value.numel()}
    spans = [(name, each.data_ptr(), bytes_of(each)) for name, each in tensors.items()]
    # Triton's own parameters, for scratch memory that these kernels have none of, come last.
    flat = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
    packed = b""
    for type, value in zip(types, flat + [0] * (len(types) - len(flat)), strict=True):
        format = FORMATS[type]
        packed += bytes(-len(packed) % struct.calcsize(format)) + struct.pack(format, value & 0xFFFFFFFF if format == "I" else value)
    grid = (*grid, 1, 1)[:3]
    launch(parse(ptx), entry, grid, 32 * kernel.metadata.num_warps, kernel.metadata.shared, packed, Memory(spans), label)


def bytes_of(tensor: Tensor) -> int:
    """From its first element to past its last one, strides included."""
    return (sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1) * tensor.element_size()


@contextlib.contextmanager
def running_on_ptx(capability: int) -> Iterator[list]:
    """Launches compile for sm_<capability> and run on their PTX, on CPU tensors; lists the kernels.

    Raises what `compiling_for` and `ptx.launch` raise, UnsupportedPtx among it.
    """
    with compiling_for(capability, run) as compiled:
        yield compiled
