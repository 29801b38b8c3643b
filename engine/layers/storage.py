"""What the stored tensors of a layer must look like, and the float weight they stand for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..env import extension
from ..formats import LayerFormat, companion_dtype, dequantize_weight, quantize_weight
from .matrix import kernel_of, smooth_columns, to_matrix

COMPUTE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Tensors that a dtype conversion of the layer converts, to the 16-bit type that goes with its compute dtype.
COMPANIONS = ("smooth_factor", "proj_down", "proj_up")
COMPANION_DTYPES = (torch.float16, torch.bfloat16)


def is_companion(name: str, layer_format: LayerFormat) -> bool:
    """Whether the tensor is stored in the 16-bit type that goes with the layer's compute dtype."""
    return name in COMPANIONS or (name == "wscales" and layer_format.weight == "int4")


def stored_dtype(companion: Tensor, compute_dtype: torch.dtype) -> torch.dtype:
    """What a companion is stored in once the layer computes in another dtype: a wider one leaves it as it is."""
    return compute_dtype if compute_dtype.itemsize == 2 else companion.dtype


def check_storage(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise ValueError unless names, shapes and dtypes are those of `LayerFormat.tensors`."""
    if dtype not in COMPUTE_DTYPES:
        raise ValueError(f"dtype: float16, bfloat16, float32 or float64 needed to compute in, got {dtype}")
    schema = layer_format.tensors(shape[0], shape[1], kernel_of(shape), dtype)
    if missing := [name for name in schema if name not in storage]:
        raise ValueError(f"{missing[0]}: needed for {layer_format.weight} storage, got only {', '.join(storage) or 'nothing'}")
    if unknown := [name for name in storage if name not in schema]:
        raise ValueError(f"{unknown[0]}: not stored in this format, which has {', '.join(schema)}")
    device = storage["qweight"].device
    # A layer that computes in a wider type keeps companions of either 16-bit type, but all of the same.
    first = next((storage[name] for name in schema if is_companion(name, layer_format)), None)
    narrow = first is not None and first.dtype in COMPANION_DTYPES
    companions = stored_dtype(first, dtype) if narrow else companion_dtype(dtype)
    for name, (size, kind) in schema.items():
        tensor = storage[name]
        if is_companion(name, layer_format):
            kind = companions
        if tuple(tensor.shape) != size or tensor.dtype != kind:
            raise ValueError(f"{name}: {kind} {list(size)} needed, got {tensor.dtype} {list(tensor.shape)}")
        if tensor.device != device:
            raise ValueError(f"{name}: must be on {device} like qweight, got {tensor.device}")


def dequantize_residual(storage: Mapping[str, Tensor], layer_format: LayerFormat) -> Tensor:
    """The quantized part as stored, still multiplied by the smooth_factor: float32 [N, K]."""
    qweight = storage["qweight"]
    # A kernel on raw pointers can neither be traced nor see other devices.
    plain = type(qweight) is Tensor and qweight.device.type == "cpu" and not torch.compiler.is_compiling()
    if layer_format.weight == "int4" and plain and extension():
        from ..ops.cpu.kernels import expand_int4

        return expand_int4(qweight, storage["wscales"])
    return dequantize_weight(qweight, storage["wscales"], storage.get("wtscale"), layer_format.weight)


def dequantize_storage(storage: Mapping[str, Tensor], layer_format: LayerFormat, shape: tuple[int, ...]) -> Tensor:
    """The whole stored weight, W ~ Wq / smooth + (proj_down @ proj_up^T)^T: float32 [N, K]."""
    weight = dequantize_residual(storage, layer_format)
    if layer_format.smooth:
        weight = weight / smooth_columns(storage["smooth_factor"], shape)
    if layer_format.rank:
        weight = weight.addmm(storage["proj_up"].float(), storage["proj_down"].float().t())
    return weight


def quantize_storage(
    weight: Tensor,
    layer_format: LayerFormat,
    smooth_factor: Tensor | None = None,
    proj_down: Tensor | None = None,
    proj_up: Tensor | None = None,
) -> dict[str, Tensor]:
    """Round to nearest what the low-rank branch leaves of a float weight [N, K] or [N, C, kh, kw].

    Companions get the 16-bit type that goes with its dtype; a proj_down that already has it is kept as the same object, so that
    several layers can share it.
    """
    if reason := layer_format.reason_against(weight.shape[0], weight.shape[1], kernel_of(tuple(weight.shape))):
        raise ValueError(reason)
    given = {"smooth_factor": smooth_factor, "proj_down": proj_down, "proj_up": proj_up}
    wanted = {"smooth_factor": layer_format.smooth, "proj_down": layer_format.rank > 0, "proj_up": layer_format.rank > 0}
    for name, tensor in given.items():
        if (tensor is not None) != wanted[name]:
            need, came = ("needed", "None") if wanted[name] else ("not stored", "one")
            raise ValueError(f"{name}: {need} in this format, got {came}")
    dtype = companion_dtype(weight.dtype)
    companions = {name: tensor.detach().to(dtype) for name, tensor in given.items() if tensor is not None}
    residual = to_matrix(weight.detach()).float()
    # The residual makes up for the rounding of the companions to their stored type.
    if layer_format.rank:
        residual = residual.addmm(companions["proj_up"].float(), companions["proj_down"].float().t(), alpha=-1)
    if layer_format.smooth:
        residual = residual * smooth_columns(companions["smooth_factor"], tuple(weight.shape))
    return quantize_weight(residual, layer_format.weight, dtype, layer_format.four_over_six) | companions
