"""The form of a weight that runs: low-bit kernels, a dense float type, INT8, or an emulation of what a GPU computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..formats import LayerFormat
from .build_kernel_form import for_gpu, small_form
from .emulated import emulate
from .expanded import expand
from .expanded_each_call import expand_each_call
from .fastest import fastest_kind
from .int8_convolution import fold_convolution
from .int8_linear import fold_linear

if TYPE_CHECKING:
    from .weight import LowBitWeight

# Numerics -> the stored weight formats that can compute in them.
NUMERICS = {
    "native": ("int4", "nvfp4", "int8", "fp8"),
    "w4a4": ("int4",),
    "w4a8": ("int4", "nvfp4"),
    "nvfp4": ("nvfp4",),
}


MEMORY = ("fast", "4bit")


class Prepared(Protocol):
    """kind: what runs, such as "expanded float32"; reason: why, in a sentence; nbytes: of what is kept beside the storage."""

    kind: str
    reason: str
    nbytes: int

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor: ...

    def conv2d(self, x: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor: ...


def reason_against(layer_format: LayerFormat, numerics: str) -> str | None:
    """One sentence why a layer of this format cannot compute so, or None."""
    if numerics not in NUMERICS:
        return f"numerics: one of {', '.join(NUMERICS)} needed, got {numerics!r}"
    stored = layer_format.weight
    # A layer with 16-bit activations computes the same on every GPU.
    if layer_format.activation is not None and stored not in NUMERICS[numerics]:
        return f"numerics {numerics} needs {' or '.join(NUMERICS[numerics])} storage, got {stored}"
    return None


def reason_against_memory(memory: str, numerics: str) -> str | None:
    """One sentence why no layer can be prepared so, or None."""
    if memory not in MEMORY:
        return f"memory: one of {', '.join(MEMORY)} needed, got {memory!r}"
    if memory != "fast" and numerics != "native":
        return f"memory: 'fast' needed with numerics {numerics}, which are emulated in float32, got {memory!r}"
    return None


def build(weight: LowBitWeight) -> Prepared:
    """The prepared form for the weight's numerics on its device; raises ValueError when its storage cannot compute so."""
    if reason := reason_against(weight.layer_format, weight.numerics):
        raise ValueError(reason)
    if weight.numerics != "native":
        return emulate(weight, fold_to_int8=weight.numerics == "w4a8")
    if weight.device.type == "cuda":
        return for_gpu(weight, torch.cuda.get_device_capability(weight.device))
    dense = expand if weight.memory == "fast" else expand_each_call
    if weight.device.type != "cpu":
        return dense(weight, weight.dtype, f"no low-bit kernel runs on {weight.device.type} yet")
    if torch.compiler.is_compiling():
        return dense(weight, weight.dtype, "traced before it was prepared")
    if weight.memory == "4bit":
        return small_on_cpu(weight)
    kind, reason = fastest_kind(weight)
    if kind != "int8":
        return expand(weight, getattr(torch, kind), reason)
    return fold_linear(weight, reason) if weight.ndim == 2 else fold_convolution(weight, reason)


def small_on_cpu(weight: LowBitWeight) -> Prepared:
    """Linear layers with quantized activations fold to INT8 at each call, the others dequantize into their compute dtype."""
    if weight.ndim == 2 and weight.layer_format.activation is not None:
        return small_form(weight, "int8", "memory 4bit was asked for")
    return expand_each_call(weight, weight.dtype, "memory 4bit was asked for; dequantized at each call")
