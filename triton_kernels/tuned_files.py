"""Files of configurations: JSON, one per GPU, replaced as a whole, and ignored with one warning when broken."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import triton


def file_of(folder: Path, gpu: str) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', gpu).strip('_')}.json"


def read_configs(path: Path, types: dict[str, type]) -> dict[str, Any]:
    """Key -> configuration, of those keys of `types` that the file has; nothing of a file that another Triton wrote."""
    stored = _stored(path)
    return {key: _config(path, key, kind, stored[key]) for key, kind in types.items() if key in stored}


def write_configs(path: Path, configs: dict[str, Any]) -> None:
    """Add to the file, which is written beside its place and then renamed."""
    fields = {key: dataclasses.asdict(config) for key, config in configs.items()}
    content = {"triton": triton.__version__, "configs": _stored(path) | fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    unfinished.replace(path)


def _stored(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        return dict(content["configs"]) if content["triton"] == triton.__version__ else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _warn(path, f"{type(error).__name__}: {error}")
        return {}


def _config(path: Path, key: str, kind: type, fields: Any) -> Any:
    types = {field.name: field.type for field in dataclasses.fields(kind)}  # as text, "int" or "bool"
    if isinstance(fields, dict) and fields.keys() == types.keys() and all(_is(types[name], value) for name, value in fields.items()):
        return kind(**fields)
    _warn(path, f"{key!r} needs positive integers, true or false for {', '.join(types)}")
    return None


def _is(type_name: str, value: Any) -> bool:
    return type(value).__name__ == type_name and (type_name == "bool" or value > 0)


@functools.cache
def _warn(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: ignored, because it holds no configurations of kernels ({reason})", stacklevel=2)
