"""Measurements made once per machine, in a JSON file that any number of processes may write."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..env import cpu, extension, setting
from ..ops.cpu import best_isa

FILE = "measurements.json"
_this_process: dict[tuple[Path, str, str], Any] = {}


def machine_key() -> str:
    """What a measurement on this machine depends on."""
    name, flags = cpu()
    built = f"{best_isa()} kernels" if extension() else "no extension"
    return " | ".join([name, " ".join(flags), f"{torch.get_num_threads()} threads", f"torch {torch.__version__}", built])


def remember(key: str, measure: Callable[[], Any], valid: Callable[[Any], bool]) -> Any:
    """The JSON value stored for this machine under key, or a new measurement.

    A damaged file, or a value that is not `valid`, is measured again; where the folder cannot be written, once per process.
    """
    path, machine = setting("HALFBYTE_CACHE_DIR") / FILE, machine_key()
    value = _this_process.get((path, machine, key)) or _stored(path).get(machine, {}).get(key)
    if value is None or not valid(value):
        value = measure()
        _store(path, machine, key, value)
    _this_process[path, machine, key] = value
    return value


def _stored(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and all(isinstance(measured, dict) for measured in content.values())
    return content if whole else {}


def _store(path: Path, machine: str, key: str, value: Any) -> None:
    content = _stored(path)
    content.setdefault(machine, {})[key] = value
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".json")
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1)
        # A reader sees the old file or the new one, never a part.
        os.replace(temporary, path)
    except OSError:
        return
