"""The quantizer diffusers calls while it loads or saves a low-bit model.

Loading goes: headers checked against the schema of the model on the meta device, then the plain tensors of each shard put
together into low-bit weights before diffusers sees them, then the finished model checked. Everything that does not fit exactly
is an error; diffusers alone would only warn and leave layers without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.utils import is_accelerate_available
from torch import Tensor, nn

from ..layers import LowBitWeight, install
from .alignment import align
from .header import CheckpointError, TensorInfo, read_headers
from .layer_map import LayerMap, layer_names
from .register import register
from .schema import build_schema, check_header
from .state_dict import STORED, Unflattener, flatten, weight_shapes
from .validate import check_complete


class HalfbyteQuantizer(DiffusersQuantizer):
    """layer_map: which layers of the model are low-bit, known once a model is attached or loaded."""

    use_keep_in_fp32_modules = True

    def __init__(self, quantization_config: Any, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.layer_map: LayerMap | None = None
        self._tensors: dict[str, TensorInfo] = {}
        self._unflattener: Unflattener | None = None
        self._dtype = torch.float32

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        if not self.pre_quantized:
            raise ValueError(
                "quantization_config: a folder saved by halfbyte is needed, this one holds a float model; load it without "
                "quantization_config and call halfbyte.accelerate(pipe)"
            )
        if not is_accelerate_available():
            raise ImportError(
                "accelerate: diffusers needs it to load a low-bit model, it is not installed; run pip install accelerate"
            )
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise ValueError("device_map: low-bit layers need a device or the cpu, got 'disk'")

    def update_torch_dtype(self, torch_dtype: torch.dtype | None) -> torch.dtype | None:
        self._dtype = torch_dtype or torch.float32
        return torch_dtype

    @property
    def supports_parallel_loading(self) -> bool:
        return False

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        for file in checkpoint_files:
            if Path(file).suffix != ".safetensors":
                raise CheckpointError(f"{Path(file).name}: a .safetensors file is needed, no other kind is read")
        self._tensors = read_headers(checkpoint_files)
        if odd := sorted(set(loaded_keys) ^ set(self._tensors)):
            raise CheckpointError(
                f"{odd[0]}: the index and the shards of a checkpoint must list the same tensors, only one has it"
            )
        return list(dict.fromkeys(float_key(key) for key in loaded_keys))

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        self.layer_map = LayerMap.from_dict(self.quantization_config.to_dict(), layer_names(model))
        schema = build_schema(model, self.layer_map)
        check_header(schema, self._tensors)
        self._unflattener = Unflattener(self.layer_map, schema, weight_shapes(model, self.layer_map), self._dtype)

    def maybe_update_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._unflattener.add(state_dict)

    def check_if_quantized_param(self, model: nn.Module, param_value: Tensor, *args: Any, **kwargs: Any) -> bool:
        return isinstance(param_value, LowBitWeight)

    def create_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, target_device: torch.device | str, *args: Any, **kwargs: Any
    ) -> None:
        install(model.get_submodule(param_name.removesuffix(".weight")), param_value.to(target_device))

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        check_complete(model)
        align(model)
        self._tensors, self._unflattener = {}, None
        # With this flag diffusers refuses .to(dtype), which low-bit weights can do.
        model.is_quantized = False
        model.register_to_config(quantization_config=self.quantization_config)
        return model

    def get_state_dict_and_metadata(
        self, state_dict: Mapping[str, Tensor], safe_serialization: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        if not safe_serialization:
            raise ValueError("safe_serialization: True is needed, halfbyte writes safetensors only")
        if adapters := [key for key in state_dict if ".lora_" in key]:
            raise ValueError(f"{adapters[0]}: a model without adapters is needed to save, call unload_lora_weights() first")
        flat = flatten(state_dict)
        if (found := LayerMap.of(state_dict)) != self.layer_map:
            changed = sorted(set(found.formats.items()) ^ set(self.layer_map.formats.items()), key=lambda item: item[0])
            layer = changed[0][0] if changed else "shared_down"
            raise ValueError(f"{layer}: its format changed after attach_quantizer(model), call that again before saving")
        return flat, {}

    @property
    def is_serializable(self) -> bool:
        return self.layer_map is not None

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True


def float_key(key: str) -> str:
    """`<layer>.qweight` and its companions -> `<layer>.weight`, other names as they are."""
    layer, _, name = key.rpartition(".")
    return f"{layer}.weight" if name in STORED else key


COMPLETE = True
register()
