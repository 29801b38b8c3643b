"""Small adversarial calls of the compiled kernels, which tests run on the host shim and bench/mutations on mutants."""

from .call import Call, Choice, OpCall, Refusal, bits_of
from .conv2d import conv2d_w4a4_calls, conv2d_w8a8_calls
from .gemm import gemm_nvfp4_calls, gemm_w4a4_calls, gemm_w8a8_calls
from .gemm_sm90 import sm90_gemm_w8a8_calls
from .launches import with_launches
from .quantize import group_norm_calls, norm_calls, quantize_calls
from .quantize_sm90 import sm90_quantize_calls
from .small import cache_calls, rope_calls
from .w4a16 import w4a16_calls
from .work import reason_against_work

# Kernel file of csrc/cuda -> its calls, which also run the files that its host code calls.
COMPUTED = {
    "sm80_gemm_w4a4": gemm_w4a4_calls,
    "sm80_gemm_w8a8": gemm_w8a8_calls,
    "sm90_gemm_w8a8": sm90_gemm_w8a8_calls,
    "sm120_gemm_nvfp4": gemm_nvfp4_calls,
    "sm80_conv2d_w4a4": conv2d_w4a4_calls,
    "sm80_conv2d_w8a8": conv2d_w8a8_calls,
    "smxx_quantize_act": quantize_calls,
    "sm90_quantize_act": sm90_quantize_calls,
    "smxx_norm_quantize": norm_calls,
    "smxx_group_norm_quantize": group_norm_calls,
    "smxx_gemm_w4a16": w4a16_calls,
    "smxx_qk_norm_rope": rope_calls,
    "smxx_cache": cache_calls,
}

KERNEL_CALLS = {stem: with_launches(calls) for stem, calls in COMPUTED.items()}

__all__ = ["KERNEL_CALLS", "Call", "Choice", "OpCall", "Refusal", "bits_of", "reason_against_work"]
