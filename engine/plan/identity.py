"""Which model a plan was made for: its class, its config and its layer shapes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ModelIdentity:
    """class_name: the denoiser's class; config: digest of its config; shapes: digest of its parameter names and shapes."""

    class_name: str
    config: str
    shapes: str

    @classmethod
    def of(cls, model: nn.Module) -> ModelIdentity:
        settings = {key: value for key, value in dict(getattr(model, "config", {})).items() if key not in _VOLATILE and not key.startswith("_")}
        modules = {
            name: [module.in_features, module.out_features] if isinstance(module, nn.Linear) else [*module.weight.shape]
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d)) and "lora_" not in name
        }
        modules = {name.replace(".base_layer", ""): shape for name, shape in modules.items()}
        return cls(type(model).__name__, _digest(settings), _digest(modules))

    def reason_against(self, other: ModelIdentity) -> str | None:
        """One sentence when a plan for `self` does not fit a model that is `other`."""
        for field, needed in asdict(self).items():
            if needed != (came := asdict(other)[field]):
                return f"model.{field}: the plan was made for {needed}, this model has {came}"
        return None


_VOLATILE = {"quantization_config"}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
