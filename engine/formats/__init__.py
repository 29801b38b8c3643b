"""What the bits mean: number formats, their packing, and the tensors a layer stores."""

from . import fp8, int4, int8, nvfp4
from .layer_format import LayerFormat, companion_dtype
from .packing import pack_nibbles, unpack_nibbles
from .weight import dequantize_weight, quantize_weight

__all__ = [
    "LayerFormat",
    "companion_dtype",
    "dequantize_weight",
    "fp8",
    "int4",
    "int8",
    "nvfp4",
    "pack_nibbles",
    "quantize_weight",
    "unpack_nibbles",
]
