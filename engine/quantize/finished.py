"""Finished blocks on disk, so that an interrupted conversion continues and ends with the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .select import Decision

# Part of every key: raise it when the same inputs start to give other bits.
ALGORITHM = 2


def block_key(settings: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of everything a block's result depends on: settings as JSON, names, dtypes, shapes and bytes of its tensors."""
    digest = hashlib.sha256(json.dumps({"algorithm": ALGORITHM, **settings}, sort_keys=True, default=str).encode())
    for name, tensor in tensors:
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class FinishedBlocks:
    """A folder with one safetensors file per finished block, named after the block and its key; written whole or not at all."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, block: str, key: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', block)}-{key}.safetensors"

    def save(self, block: str, key: str, storages: Mapping[str, Mapping[str, Tensor]], notes: Mapping[str, str]) -> None:
        """storages: layer name -> stored tensors; a proj_down that several layers hold is written once, under the first."""
        tensors: dict[str, Tensor] = {}
        seen: set[int] = set()
        for layer, storage in storages.items():
            for name, tensor in storage.items():
                if name != "proj_down" or id(tensor) not in seen:
                    tensors[f"{layer}.{name}"] = tensor.cpu().contiguous().clone()
                    seen.add(id(tensor))
        path = self._path(block, key)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(tensors, partial, metadata={"notes": json.dumps(notes)})
        partial.replace(path)

    def load(
        self, block: str, key: str, decisions: Sequence[Decision], dtype: torch.dtype
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]] | None:
        """(storages, notes) as they were saved, a shared proj_down shared again; None when absent, damaged or incomplete."""
        path = self._path(block, key)
        try:
            with safe_open(path, framework="pt") as file:
                notes = json.loads((file.metadata() or {}).get("notes", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, json.JSONDecodeError):
            return None
        storages: dict[str, dict[str, Tensor]] = {}
        owned: dict[str, Tensor] = {}
        for decision in decisions:
            schema = decision.layer_format.tensors(*decision.sizes, dtype, decision.input_group not in owned)
            storage = {name: tensors.pop(f"{decision.name}.{name}", None) for name in schema}
            if any(tensor is None or (tuple(tensor.shape), tensor.dtype) != schema[name] for name, tensor in storage.items()):
                return None
            if decision.layer_format.rank:
                storage["proj_down"] = owned.setdefault(decision.input_group, storage.get("proj_down"))
            storages[decision.name] = storage
        return None if tensors else (storages, notes)
