"""What a GPU computes a stored layer in: a pure choice from the layer's format and the GPU's compute capability."""

from __future__ import annotations

from dataclasses import dataclass

from ..formats import LayerFormat

INT4_TENSOR_CORES = ((8, 6), (8, 7), (8, 9))
FP8_PRODUCTS = ((8, 9), (12, 0), (12, 1))
# There kernels multiply E4M3 as fast as INT8, but none convolves it. The GPUs above sum it in float32 at half the rate of INT8.
FP8_FOLDS = ((9, 0),)
NVFP4_PRODUCTS = ((12, 0), (12, 1))
OLDEST = (8, 0)


@dataclass(frozen=True)
class GpuCompute:
    """activation: the format of both operands ("int4", "nvfp4", "int8", "fp8"), or None for 16-bit activations."""

    activation: str | None
    reason: str


def gpu_compute(layer_format: LayerFormat, capability: tuple[int, int], convolves: bool = False) -> GpuCompute | None:
    """None where no kernel runs: GPUs before sm_80. See docs/kernels.md for why each GPU gets what it gets."""
    name = f"sm_{capability[0]}{capability[1]}"
    if capability < OLDEST:
        return None
    if layer_format.activation is None:
        return GpuCompute(None, "its format keeps 16-bit activations")
    stored = layer_format.weight
    # A format with 8-bit activations asks for their precision: nothing coarser may run in its place.
    if stored == "int4" and layer_format.activation == "int4" and capability in INT4_TENSOR_CORES:
        return GpuCompute("int4", f"{name} has INT4 tensor cores")
    if stored == "nvfp4" and layer_format.activation == "nvfp4" and capability in NVFP4_PRODUCTS:
        return GpuCompute("nvfp4", f"{name} has NVFP4 tensor cores")
    if stored == "fp8" and capability in FP8_PRODUCTS:
        return GpuCompute("fp8", f"{name} has FP8 tensor cores for it")
    if stored in ("nvfp4", "fp8") and layer_format.activation != "int8" and capability in FP8_FOLDS and not convolves:
        return GpuCompute("fp8", f"{name} has FP8 tensor cores, which keep most bits of {stored} codes")
    if stored == "int8":
        return GpuCompute("int8", "it is stored so")
    if stored == "int4" and capability == (8, 0):
        return GpuCompute("int8", "rescaling INT4 sums costs sm_80 more than its INT4 tensor cores save")
    return GpuCompute("int8", f"{name} multiplies INT8 natively, {stored} not")
