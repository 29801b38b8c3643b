"""The exact tensors a checkpoint must hold, derived from the model (on any device, meta included) and its LayerMap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .header import CheckpointError, TensorInfo
from .layer_map import LayerMap

# A reader that misses the quantization_config would leave the low-bit layers without values and go on, with garbage as output.
# One empty tensor where it looks for a weight makes it stop at a shape error instead.
GUARD = torch.empty(0, dtype=torch.uint8)
COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Of scales, smoothing and the low-rank branch; one layer's are all of one of them.
COMPANION_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TensorSpec:
    """dtypes: those allowed. layer: the low-bit layer the tensor belongs to, None for a float tensor."""

    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    layer: str | None = None


def build_schema(model: nn.Module, layer_map: LayerMap) -> dict[str, TensorSpec]:
    """Tensor name -> spec for the whole model. Raises CheckpointError for a layer whose sizes its format does not allow."""
    schema: dict[str, TensorSpec] = {}
    for key, tensor in model.state_dict().items():
        layer = key.removesuffix(".weight")
        if key.endswith(".weight") and layer in layer_map.formats:
            schema |= _layer_specs(layer, model, layer_map)
        else:
            # A model may be saved in one float type and loaded in another, as with float checkpoints.
            schema[key] = TensorSpec(tuple(tensor.shape), COMPUTE_DTYPES if tensor.is_floating_point() else (tensor.dtype,))
    if guarded := guarded_layer(layer_map):
        schema[f"{guarded}.weight"] = TensorSpec(tuple(GUARD.shape), (GUARD.dtype,), guarded)
    return schema


def guarded_layer(layer_map: LayerMap) -> str | None:
    """The layer that carries the GUARD: the first by name, the same whatever order a model or a file lists them in."""
    return min(layer_map.formats, default=None)


def _layer_specs(name: str, model: nn.Module, layer_map: LayerMap) -> dict[str, TensorSpec]:
    out_features, in_features, kernel = layer_sizes(name, model)
    owner = layer_map.down_owner.get(name)
    if owner and (other := layer_sizes(owner, model)[1:]) != (in_features, kernel):
        raise CheckpointError(
            f"shared_down: {name} needs the in_features and kernel of {owner}, {other}, it has {(in_features, kernel)}"
        )
    layer_format = layer_map.formats[name]
    try:
        by_dtype = [layer_format.tensors(out_features, in_features, kernel, dtype, owner is None) for dtype in COMPUTE_DTYPES]
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from None
    return {
        f"{name}.{key}": TensorSpec(shape, tuple(dict.fromkeys(tensors[key][1] for tensors in by_dtype)), name)
        for key, (shape, _) in by_dtype[0].items()
    }


def layer_sizes(name: str, model: nn.Module) -> tuple[int, int, tuple[int, int]]:
    """out_features, in_features and kernel of a Linear or Conv2d; raises CheckpointError for a grouped convolution."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features, (1, 1)
    if module.groups != 1:
        raise CheckpointError(f"{name}: a convolution with groups=1 is needed for low-bit storage, it has {module.groups}")
    return module.out_channels, module.in_channels, tuple(module.kernel_size)


def check_header(schema: Mapping[str, TensorSpec], tensors: Mapping[str, TensorInfo]) -> None:
    """Raises CheckpointError unless the file holds exactly the tensors of the schema."""
    if missing := [name for name in schema if name not in tensors]:
        raise CheckpointError(f"{_first(missing)}: needed by the model and its quantization_config, missing from the checkpoint")
    if unexpected := [name for name in tensors if name not in schema]:
        raise CheckpointError(
            f"{_first(unexpected)}: in the checkpoint, but neither the model nor its quantization_config has it"
        )
    typed: dict[str, str] = {}
    for name, spec in schema.items():
        info = tensors[name]
        if info.shape != spec.shape:
            raise CheckpointError(f"{name}: shape {list(spec.shape)} is needed, the checkpoint has {list(info.shape)}")
        if info.dtype not in spec.dtypes:
            names = " or ".join(map(_short, spec.dtypes))
            raise CheckpointError(f"{name}: {names} is needed, the checkpoint has {_short(info.dtype)}")
        if spec.layer is not None and spec.dtypes == COMPANION_DTYPES:
            other = typed.setdefault(spec.layer, name)
            if tensors[other].dtype != info.dtype:
                needed = _short(tensors[other].dtype)
                raise CheckpointError(f"{name}: {needed} is needed as in {other}, the checkpoint has {_short(info.dtype)}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
