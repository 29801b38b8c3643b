"""The header of a safetensors file, read on its own and with limits, before any tensor is touched.

The safetensors library lets pass: a name that occurs twice (the last wins), hundreds of thousands of empty tensors, names such as
`../../x`, and number formats we never write. All of them are refused here. Layout: 8 bytes little-endian header length, JSON
{name: {dtype, shape, data_offsets}}, then the data without gaps. Source: safetensors format description, 0.8.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 65_536
MAX_NAME_LENGTH = 256
MAX_DIMENSIONS = 8
NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted; the message is one sentence: what, what was needed, what came."""


@dataclass(frozen=True)
class TensorInfo:
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_headers(paths: Iterable[Path | str]) -> dict[str, TensorInfo]:
    """The tensors of all shards of one model; raises CheckpointError as `read_header`, and for a name in two shards."""
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        for name, info in read_header(path).items():
            if name in tensors:
                raise CheckpointError(f"{Path(path).name}: tensor {name} is needed once, it is in another shard too")
            tensors[name] = info
    return tensors


def read_header(path: Path | str) -> dict[str, TensorInfo]:
    """name -> shape and dtype of every tensor in the file. Raises CheckpointError, OSError when there is no such file."""
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > MAX_HEADER_BYTES:
            room = min(max(size - 8, 0), MAX_HEADER_BYTES)
            raise CheckpointError(f"{path.name}: a header of at most {room} bytes is needed, its length field says {length}")
        text = file.read(length)
    entries = _parse(path.name, text)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path.name}: __metadata__ must map names to text, got {_shown(metadata)}")
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{path.name}: at most {MAX_TENSORS} tensors are accepted, the header lists {len(entries)}")
    spans = {name: _check_entry(path.name, name, entry) for name, entry in entries.items()}
    _check_layout(path.name, spans, size - 8 - length)
    return {name: info for name, (info, _, _) in spans.items()}


def _parse(file: str, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise CheckpointError(f"{file}: {_shown(twice)} is needed once in the header, it is there twice")
        return values

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: the header must be JSON, got {_shown(str(error))}") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: the header must be a JSON object, got {_shown(entries)}")
    return entries


def _check_entry(file: str, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """The tensor and its first and last data byte."""
    if len(name) > MAX_NAME_LENGTH or not NAME.fullmatch(name):
        raise CheckpointError(f"{file}: a tensor name of letters, digits, _, - and single dots is needed, got {_shown(name)}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{file}: tensor {name} needs dtype, shape and data_offsets, got {_shown(entry)}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(f"{file}: tensor {name} needs a dtype of {', '.join(DTYPES)}, got {_shown(entry['dtype'])}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{file}: tensor {name} needs a shape of at most {MAX_DIMENSIONS} sizes, got {_shown(shape)}")
    info = TensorInfo(tuple(shape), dtype)
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != info.bytes:
        raise CheckpointError(f"{file}: tensor {name} needs data_offsets {info.bytes} bytes apart, got {_shown(offsets)}")
    return info, offsets[0], offsets[1]


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and 0 <= x < 2**48 for x in value)


def _check_layout(file: str, spans: dict[str, tuple[TensorInfo, int, int]], data_bytes: int) -> None:
    position = 0
    for name, (_, start, end) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if start != position:
            raise CheckpointError(f"{file}: tensor {name} must start at data byte {position}, its offset is {start}")
        position = end
    if position != data_bytes:
        raise CheckpointError(f"{file}: {position} bytes of data are needed, the file has {data_bytes}")


def _shown(value: Any) -> str:
    """A short, printable form: what came from a file may be long or hold control characters."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
