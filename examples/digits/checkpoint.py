"""Resumable training state as one safetensors file and one JSON beside it, written whole or not at all."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def write_state(folder: Path, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write `tensors` and `facts` under `folder`; the JSON names the tensor file, so the pair changes in one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    current = f"state-{facts['step']}.safetensors"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / "partial.tmp")
    os.replace(folder / "partial.tmp", folder / current)
    (folder / "state.json.tmp").write_text(json.dumps(facts | {"tensors": current}, indent=1))
    os.replace(folder / "state.json.tmp", folder / "state.json")
    for old in folder.glob("state-*.safetensors"):
        if old.name != current:
            old.unlink()


def read_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """The last complete pair, or None where no training has been saved yet."""
    if not (folder / "state.json").is_file():
        return None
    facts = json.loads((folder / "state.json").read_text())
    return load_file(folder / facts["tensors"]), facts


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's per-parameter state under names `optimizer.<parameter index>.<field>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{field}": value for index, fields in state.items() for field, value in fields.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
