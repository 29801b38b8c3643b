"""What config.json says about a low-bit model: the diffusers quantization config named "halfbyte"."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from diffusers.quantizers.quantization_config import QuantizationConfigMixin

from .header import CheckpointError
from .register import register

METHOD = "halfbyte"
FORMAT_VERSION = 1
FIELDS = {"format_version": int, "formats": dict, "layers": dict, "shared_down": dict}
MAX_PATTERNS = 8192


class Method(StrEnum):
    """diffusers reads `quant_method.value`, so plain text would not do."""

    HALFBYTE = METHOD


class HalfbyteConfig(QuantizationConfigMixin):
    """formats: label -> LayerFormat as a dict. layers: label -> patterns of layer names. shared_down: owner -> layers that
    read its proj_down, as patterns too.

    Raises CheckpointError naming the field that is missing, unknown or of the wrong type.
    """

    quant_method = Method.HALFBYTE

    def __init__(
        self,
        formats: Mapping[str, Any],
        layers: Mapping[str, list[str]],
        shared_down: Mapping[str, list[str]],
        format_version: int = FORMAT_VERSION,
    ) -> None:
        self.format_version = format_version
        self.formats, self.layers, self.shared_down = dict(formats), dict(layers), dict(shared_down)
        self.quant_method = Method.HALFBYTE
        self._check()

    def _check(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise CheckpointError(
                f"quantization_config.format_version: this one reads {FORMAT_VERSION}, the checkpoint has {self.format_version!r}"
            )
        for field in ("layers", "shared_down"):
            for key, names in getattr(self, field).items():
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise CheckpointError(
                        f"quantization_config.{field}.{key}: a list of layer names is needed, got {ascii(names)[:60]}"
                    )
        if (count := sum(len(names) for names in [*self.layers.values(), *self.shared_down.values()])) > MAX_PATTERNS:
            raise CheckpointError(f"quantization_config: at most {MAX_PATTERNS} layer patterns are accepted, got {count}")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """From config.json; diffusers calls it with the whole `quantization_config` entry."""
        values = {key: value for key, value in config_dict.items() if key != "quant_method"}
        if unknown := sorted(set(values) - set(FIELDS)):
            raise CheckpointError(f"quantization_config.{unknown[0]}: not a field, which are {', '.join(FIELDS)}")
        for field, kind in FIELDS.items():
            if not isinstance(values.get(field), kind):
                raise CheckpointError(
                    f"quantization_config.{field}: a JSON {kind.__name__} is needed, got {ascii(values.get(field))[:60]}"
                )
        config = cls(**values)
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        return {"quant_method": METHOD, **{field: getattr(self, field) for field in FIELDS}}

    def to_diff_dict(self) -> dict[str, Any]:
        return self.to_dict()


COMPLETE = True
register()
