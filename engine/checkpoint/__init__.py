"""Low-bit models on disk: plain safetensors, checked strictly, through diffusers' own save_pretrained and from_pretrained.

Only `register` is loaded at once, so that `import halfbyte` stays cheap; the other names are imported when first used.
"""

from importlib import import_module
from typing import Any

from .register import register

_MODULE_OF = {
    "CheckpointError": "header",
    "HalfbyteConfig": "config",
    "HalfbyteQuantizer": "diffusers_quantizer",
    "LayerMap": "layer_map",
    "ModelFolder": "load",
    "TensorInfo": "header",
    "TensorSpec": "schema",
    "Unflattener": "state_dict",
    "attach_quantizer": "save",
    "build_schema": "schema",
    "check_complete": "validate",
    "check_header": "schema",
    "check_layer": "validate",
    "detach_quantizer": "save",
    "flatten": "state_dict",
    "layer_names": "layer_map",
    "merge_adapters": "merge",
    "load_pipeline": "load",
    "read_header": "header",
    "read_headers": "header",
    "read_model_folder": "load",
    "read_pipeline_folder": "load",
    "unflatten": "state_dict",
}
__all__ = ["register", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
