"""A workload read from a small JSON file: which pipeline, which conditions, which call arguments, which classifier judges it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

FIELDS = {"pipeline", "classifier", "argument", "conditions", "call", "image_size"}


@dataclass(frozen=True)
class Workload:
    """One pipeline and how it is called.

    argument: the call argument that takes the conditions (`class_labels`, `prompt`). conditions: one value per class, in the
    classifier's order. call: further arguments. Image i takes condition i modulo their number and the seed `first_seed + i`.
    """

    name: str
    pipeline: Path
    classifier: Path
    argument: str
    conditions: tuple[Any, ...]
    call: dict[str, Any] = field(default_factory=dict)
    image_size: int = 32

    @classmethod
    def load_all(cls, path: Path) -> dict[str, Workload]:
        """Every workload of `path` (a folder gets `workloads.json`); raises ValueError naming the field that is wrong."""
        path = path / "workloads.json" if path.is_dir() else path
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(f"examples needs a folder with workloads.json; {path} does not exist (clone the repository)") from None
        workloads = {}
        for name, entry in data.items():
            if set(entry) != FIELDS:
                raise ValueError(f"{path}: {name} needs exactly the fields {sorted(FIELDS)}; {sorted(entry)} came")
            folders = {key: path.parent / entry[key] for key in ("pipeline", "classifier")}
            workloads[name] = cls(name, **folders, **{k: v for k, v in entry.items() if k not in folders} | {"conditions": tuple(entry["conditions"])})
        return workloads

    def call_arguments(self, count: int, first_seed: int = 0, steps: int = 50) -> dict[str, Any]:
        """The arguments of one call that makes `count` images, each from a seed of its own."""
        return {
            **self.call,
            self.argument: [self.conditions[index % len(self.conditions)] for index in range(first_seed, first_seed + count)],
            "generator": [torch.Generator().manual_seed(first_seed + index) for index in range(count)],
            "num_inference_steps": steps,
            "output_type": "np",
        }

    def labels(self, count: int, first_seed: int = 0) -> torch.Tensor:
        """The class each image of `call_arguments` should show; int64 [count]."""
        return torch.arange(first_seed, first_seed + count) % len(self.conditions)
