"""Low-bit weights to and from plain tensors: `<layer>.weight` <-> `<layer>.qweight`, `<layer>.wscales`, ..."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..layers import LowBitWeight, stored_dtype
from .header import CheckpointError, TensorInfo
from .layer_map import LayerMap
from .schema import COMPANION_DTYPES, GUARD, TensorSpec, build_schema, check_header, guarded_layer
from .validate import check_layer

STORED = ("qweight", "wscales", "wtscale", "smooth_factor", "proj_down", "proj_up")


def flatten(tensors: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict (or a model's) in which every low-bit weight is replaced by what it stores; a shared proj_down appears once.

    Raises CheckpointError for a weight into which an adapter was fused: its format has no place for the adapter.
    """
    state_dict = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    layer_map = LayerMap.of(state_dict)
    flat: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        if not isinstance(tensor, LowBitWeight):
            flat[key] = tensor
            continue
        layer = key.removesuffix(".weight")
        if tensor.side:
            raise CheckpointError(
                f"{layer}: a weight without a fused adapter is needed to save, call unfuse_lora() or merge_adapters(model)"
            )
        for name, value in tensor.storage.items():
            if name != "proj_down" or layer not in layer_map.down_owner:
                flat[f"{layer}.{name}"] = value
    if guarded := guarded_layer(layer_map):
        flat[f"{guarded}.weight"] = GUARD.clone()
    return flat


class Unflattener:
    """Turns the tensors of a checkpoint, shard by shard in any order, back into low-bit weights as soon as each is whole."""

    def __init__(
        self,
        layer_map: LayerMap,
        schema: Mapping[str, TensorSpec],
        shapes: Mapping[str, torch.Size],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """shapes: layer name -> shape of its float weight. dtype: the layers compute in; 16-bit companions are converted to it."""
        self._layer_map, self._shapes, self._dtype = layer_map, shapes, dtype
        self._keys = {key for key, spec in schema.items() if spec.layer is not None}
        self._companions = {key for key in self._keys if schema[key].dtypes == COMPANION_DTYPES}
        self._needed: dict[str, set[str]] = {layer: set() for layer in layer_map.formats}
        for key in self._keys:
            self._needed[schema[key].layer].add(key)
        for layer, owner in layer_map.down_owner.items():
            self._needed[layer].add(f"{owner}.proj_down")
        self._waiting: dict[str, Tensor] = {}

    def add(self, shard: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The float tensors of this shard, and the low-bit weights that are now whole as `<layer>.weight`.

        Raises CheckpointError for a stored value that cannot be right.
        """
        ready = {key: tensor for key, tensor in shard.items() if key not in self._keys}
        self._waiting |= {key: self._converted(key, tensor) for key, tensor in shard.items() if key in self._keys}
        for layer in [layer for layer, needed in self._needed.items() if needed <= self._waiting.keys()]:
            ready[f"{layer}.weight"] = self._build(layer, self._needed.pop(layer))
        still_needed = set().union(*self._needed.values())
        self._waiting = {key: tensor for key, tensor in self._waiting.items() if key in still_needed}
        return ready

    def _converted(self, key: str, tensor: Tensor) -> Tensor:
        return tensor.to(stored_dtype(tensor, self._dtype)) if key in self._companions else tensor

    def _build(self, layer: str, keys: set[str]) -> LowBitWeight:
        storage = {key.rpartition(".")[2]: self._waiting[key] for key in sorted(keys) if key != f"{layer}.weight"}
        check_layer(layer, storage)
        owns_down = layer not in self._layer_map.down_owner
        return LowBitWeight(storage, self._layer_map.formats[layer], tuple(self._shapes[layer]), self._dtype, owns_down)


def unflatten(flat: Mapping[str, Tensor], model: nn.Module, layer_map: LayerMap) -> dict[str, Tensor]:
    """The inverse of `flatten`: a state dict for `model`, which computes in one dtype.

    Raises CheckpointError unless `flat` fits model and LayerMap.
    """
    schema = build_schema(model, layer_map)
    check_header(schema, {key: TensorInfo(tuple(tensor.shape), tensor.dtype) for key, tensor in flat.items()})
    dtypes = {model.get_submodule(layer).weight.dtype for layer in layer_map.formats}
    return Unflattener(layer_map, schema, weight_shapes(model, layer_map), *dtypes).add(flat)


def weight_shapes(model: nn.Module, layer_map: LayerMap) -> dict[str, torch.Size]:
    return {layer: model.get_submodule(layer).weight.shape for layer in layer_map.formats}
