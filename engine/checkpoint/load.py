"""Opening a folder on disk: what is in it, checked before anything is built, and the pipeline it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .alignment import align
from .header import CheckpointError, TensorInfo, read_headers
from .register import register

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ModelFolder:
    """One model of a pipeline: its config.json and its tensors, read from the headers alone."""

    name: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @property
    def low_bit(self) -> bool:
        return any(name.endswith(".qweight") for name in self.tensors)

    @property
    def stored_bytes(self) -> int:
        return sum(info.bytes for info in self.tensors.values())


def read_model_folder(folder: Path | str, variant: str | None = None) -> ModelFolder:
    """Raises CheckpointError when the folder is no model, holds no safetensors, or lost the config of its low-bit weights."""
    folder = Path(folder)
    config = read_json(folder / "config.json", "a model folder")
    model = ModelFolder(folder.name, config, read_headers(_weight_files(folder, variant)))
    if model.low_bit and not config.get("quantization_config"):
        raise CheckpointError(f"{folder / 'config.json'}: low-bit weights need a quantization_config to be read, it has none")
    return model


def _weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The file, or the shards an index lists, under the names diffusers and transformers give them, variant or not."""
    infixes = [f".{variant}", ""] if variant else [""]
    for infix, stem in product(infixes, ("diffusion_pytorch_model", "model")):
        if (single := folder / f"{stem}{infix}.safetensors").is_file():
            return [single]
        if (index := folder / f"{stem}.safetensors.index{infix}.json").is_file():
            names = read_json(index, "a sharded model").get("weight_map")
            if not isinstance(names, dict) or not all(isinstance(x, str) and Path(x).name == x for x in names.values()):
                raise CheckpointError(
                    f"{index}: weight_map must map tensors to file names in the same folder, got {ascii(names)[:60]}"
                )
            if missing := sorted({x for x in names.values() if not (folder / x).is_file()}):
                raise CheckpointError(f"{folder}: shard {missing[0]} is needed by the index, there is no such file")
            return [folder / name for name in sorted(set(names.values()))]
    came = sorted(path.name for path in folder.iterdir() if path.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
    raise CheckpointError(f"{folder}: weights as diffusion_pytorch_model.safetensors are needed, got {', '.join(came) or 'none'}")


def read_pipeline_folder(folder: Path | str, variant: str | None = None) -> dict[str, ModelFolder]:
    """Component name -> model folder, for every component of the pipeline that has weights. Raises CheckpointError as above."""
    folder = Path(folder)
    index = read_json(folder / "model_index.json", "a pipeline folder")
    if not isinstance(index.get("_class_name"), str):
        raise CheckpointError(
            f"{folder / 'model_index.json'}: _class_name must name the pipeline, got {ascii(index.get('_class_name'))}"
        )
    has_weights = [name for name in index if name.isidentifier() and (folder / name / "config.json").is_file()]
    return {name: read_model_folder(folder / name, variant) for name in has_weights}


def load_pipeline(
    folder: Path | str, dtype: torch.dtype | None = None, variant: str | None = None, **kwargs: Any
) -> DiffusionPipeline:
    """The pipeline saved in `folder`, float or low-bit, its files checked first; never reads anything but safetensors and JSON.

    dtype: as for `DiffusionPipeline.from_pretrained`, float32 when None. kwargs go to that function.
    """
    register()
    read_pipeline_folder(folder, variant)
    from diffusers import DiffusionPipeline

    kwargs |= {"use_safetensors": True, "local_files_only": True}
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, variant=variant, **kwargs)
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            align(component)
    return pipe


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file of `what`; raises CheckpointError when it is missing, too large or something else."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: {what} with {path.name} is needed, there is no such file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: at most {MAX_JSON_BYTES} bytes are accepted, it has {path.stat().st_size}")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: a JSON object is needed, got {ascii(str(error))[:80]}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, got {type(values).__name__}")
    return values
