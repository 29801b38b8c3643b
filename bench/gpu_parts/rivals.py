"""What others run for the same layer: bf16 in its fastest forms, and PyTorch's own 8-bit products with their quantization."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

E4M3_MAX = 448.0
SCALED_MM_FROM = (8, 9)


def rowwise_e4m3(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [M, K] -> e4m3 codes and float32 scales [M, 1]; compiled, one kernel."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / E4M3_MAX
    return (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


class ScaledMM:
    """torch._scaled_mm, row-wise scales, weight [N, K] quantized once; activations by the compiled `quantize`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        codes, scale = rowwise_e4m3(weight)
        self.codes, self.scale, self.bias, self.quantize = codes.t(), scale.t(), bias, quantize

    def product(self, codes: Tensor, scale: Tensor) -> Tensor:
        return torch._scaled_mm(codes, self.codes, scale, self.scale, self.bias, out_dtype=torch.bfloat16, use_fast_accum=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(*self.quantize(x))


def scaled_mm_refusal(device: str) -> str | None:
    """One sentence why torch._scaled_mm is not measured here, or None."""
    if device != "cuda":
        return "torch._scaled_mm is measured on GPUs only"
    capability = torch.cuda.get_device_capability()
    if capability >= SCALED_MM_FROM:
        return None
    return f"torch._scaled_mm needs sm_89 or later, this is sm_{capability[0]}{capability[1]}"


def dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def modulated_layer_norm(x: Tensor, mod_scale: Tensor, mod_shift: Tensor) -> Tensor:
    """What produces most layers' input: x [M, K], modulation [1, K]."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + mod_scale) + mod_shift


def feed_forward(x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, up, up_bias), approximate="tanh"), down, down_bias)
