"""Making a converted model saveable by its own `save_pretrained`."""

from __future__ import annotations

from torch import nn

from .layer_map import LayerMap, layer_names


def attach_quantizer(model: nn.Module) -> None:
    """Give a model with low-bit weights the diffusers quantizer that saves them; call again after its formats changed.

    `model.save_pretrained(folder)` then writes plain safetensors and a config.json that says how to read them back. Raises
    ValueError when the model has no low-bit weight.
    """
    from .config import HalfbyteConfig
    from .diffusers_quantizer import HalfbyteQuantizer

    layer_map = LayerMap.of(dict(model.named_parameters()))
    if not layer_map.formats:
        raise ValueError(
            f"{type(model).__name__}: at least one low-bit layer is needed to attach a quantizer, the model has none"
        )
    values = layer_map.to_dict(layer_names(model))
    config = HalfbyteConfig(**values)
    quantizer = HalfbyteQuantizer(config, pre_quantized=True)
    quantizer.layer_map = layer_map
    model.hf_quantizer = quantizer
    model.quantization_method = config.quant_method
    model.register_to_config(quantization_config=config)


def detach_quantizer(model: nn.Module) -> None:
    """Undo `attach_quantizer`, for a model that got its float weights back."""
    if getattr(model, "hf_quantizer", None) is None:
        return
    del model.hf_quantizer, model.quantization_method
    config = {key: value for key, value in model.config.items() if key != "quantization_config"}
    model._internal_dict = type(model.config)(config)
