"""Every op the engine computes with: a PyTorch reference each, and faster backends behind the same signature."""

from .attention import attention
from .cache import affine_correct, delta_apply, forecast, rel_l1
from .conv2d import conv2d
from .cpu import register as register_cpu
from .fold_weight import fold_weight
from .fused import (
    conv2d_gate_residual,
    gemm_nvfp4_act,
    gemm_nvfp4_act_quantize,
    gemm_nvfp4_gate_residual,
    gemm_w4a4_act,
    gemm_w4a4_act_quantize,
    gemm_w4a4_gate_residual,
    gemm_w8a8_act,
    gemm_w8a8_act_quantize,
    gemm_w8a8_gate_residual,
)
from .gemm_nvfp4 import gemm_nvfp4
from .gemm_w4a4 import gemm_w4a4
from .gemm_w4a8 import gemm_w4a8
from .gemm_w4a16 import gemm_w4a16
from .gemm_w8a8 import gemm_w8a8
from .group_norm_silu_quantize import group_norm_silu_quantize
from .joint_qkv_norm_rope import joint_qkv_norm_rope
from .native import register as register_native
from .norm_quantize import norm_quantize
from .operands import padded_rows
from .qk_norm_rope import qk_norm_rope
from .quantize_act import quantize_act
from .registry import BACKENDS, OPS, NoBackendError, Op, backends, use_backend
from .triton import register as register_triton

register_native()
register_triton()
register_cpu()

__all__ = [
    "BACKENDS",
    "OPS",
    "NoBackendError",
    "Op",
    "affine_correct",
    "attention",
    "backends",
    "conv2d",
    "conv2d_gate_residual",
    "delta_apply",
    "fold_weight",
    "forecast",
    "gemm_nvfp4",
    "gemm_nvfp4_act",
    "gemm_nvfp4_act_quantize",
    "gemm_nvfp4_gate_residual",
    "gemm_w4a16",
    "gemm_w4a4",
    "gemm_w4a4_act",
    "gemm_w4a4_act_quantize",
    "gemm_w4a4_gate_residual",
    "gemm_w4a8",
    "gemm_w8a8",
    "gemm_w8a8_act",
    "gemm_w8a8_act_quantize",
    "gemm_w8a8_gate_residual",
    "group_norm_silu_quantize",
    "joint_qkv_norm_rope",
    "norm_quantize",
    "padded_rows",
    "qk_norm_rope",
    "quantize_act",
    "rel_l1",
    "use_backend",
]
