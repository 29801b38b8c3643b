"""Launches of Triton kernels run on the PTX that Triton makes of them, by the interpreter of `halfbyte.testing.ptx`."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..ptx import Memory, launch, parse
from ..ptx.swizzle import SPANS
from ..ptx.tensor_map import TensorMap
from .target import compiling_for

FORMATS = {"u64": "Q", "b64": "Q", "s64": "q", "u32": "I", "b32": "I", "s32": "i", "f32": "f", "u8": "B", "s8": "b", "b8": "B"}
MAP_ALIGNMENT = 64


def run(kernel: Any, grid: tuple[int, ...], values: list[Any], label: str) -> None:
    """Run Triton's CompiledKernel on tensors in the CPU's memory; values: what it was launched with, constants left out."""
    ptx = kernel.asm["ptx"]
    entry, parameters = re.search(r"\.entry (\w+)\(([^)]*)\)", ptx).groups()
    types = [type or "map" for type in re.findall(r"\.param \.(?:align \d+ \.b8 \w+\[128\]|(\w+))", parameters)]
    tensors = [getattr(value, "base", value) for value in values]
    named = {f"argument {i}": each for i, each in enumerate(tensors) if isinstance(each, Tensor) and each.numel()}
    spans = [(name, each.data_ptr(), bytes_of(each)) for name, each in named.items()]
    # Triton's own parameters, for scratch memory that these kernels have none of, come last.
    flat = list(flattened(values, iter(getattr(kernel.metadata, "tensordesc_meta", None) or ())))
    packed = b""
    for type, value in zip(types, flat + [0] * (len(types) - len(flat)), strict=True):
        if type == "map":
            packed += bytes(-len(packed) % MAP_ALIGNMENT) + value
            continue
        format = FORMATS[type]
        packed += bytes(-len(packed) % struct.calcsize(format))
        packed += struct.pack(format, value & 0xFFFFFFFF if format == "I" else value)
    grid = (*grid, 1, 1)[:3]
    launch(parse(ptx), entry, grid, 32 * kernel.metadata.num_warps, kernel.metadata.shared, packed, Memory(spans), label)


def flattened(values: list[Any], layouts: Iterator[dict]) -> Iterator[Any]:
    """What the launcher hands to the kernel: a descriptor is a tensor map, its sizes and its strides. layouts: of the maps."""
    for value in values:
        if isinstance(value, Tensor):
            yield value.data_ptr()
        elif hasattr(value, "block_shape"):
            yield tensor_map(value, next(layouts)).encode()
            yield from (*value.shape, *value.strides)
        else:
            yield value


def tensor_map(descriptor: Any, layout: dict) -> TensorMap:
    """Of a TensorDescriptor, with the box and the swizzle that Triton compiled for."""
    size = descriptor.base.element_size()
    dims, strides, box = (tuple(reversed(each)) for each in (descriptor.shape, descriptor.strides, layout["block_size"]))
    return TensorMap(descriptor.base.data_ptr(), size, dims, tuple(size * stride for stride in strides), box, SPANS[layout["swizzle"]])


def bytes_of(tensor: Tensor) -> int:
    """From its first element to past its last one, strides included."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


@contextlib.contextmanager
def running_on_ptx(capability: int) -> Iterator[list]:
    """Launches compile for sm_<capability> and run on their PTX, on CPU tensors; lists the kernels.

    Raises what `compiling_for` and `ptx.launch` raise, UnsupportedPtx among it.
    """
    with compiling_for(capability, run) as compiled:
        yield compiled
