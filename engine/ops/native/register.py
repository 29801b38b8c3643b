"""Which op runs which compiled kernel, and the registration of both backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from torch import Tensor

from ..registry import OPS, named_backend, names_none
from .architectures import here
from .cache import affine_correct, delta_apply, empty_rejects, forecast, forecast_rejects, rel_l1
from .conv2d import conv2d, conv2d_file, conv2d_rejects
from .fused import (
    with_act,
    with_act_quantize,
    with_act_quantize_rejects,
    with_act_rejects,
    with_gate_residual,
    with_gate_residual_rejects,
)
from .gemm import gemm_nvfp4, gemm_nvfp4_rejects, gemm_w4a4, gemm_w4a4_rejects
from .gemm_w4a16 import gemm_w4a16, gemm_w4a16_rejects
from .gemm_w4a8 import gemm_w4a8, gemm_w4a8_file, gemm_w4a8_rejects
from .gemm_w8a8 import gemm_w8a8, gemm_w8a8_file, gemm_w8a8_quantizing_file, gemm_w8a8_rejects
from .qk_norm_rope import joint_qkv_norm_rope, joint_qkv_norm_rope_rejects, qk_norm_rope, qk_norm_rope_rejects
from .quantize import (
    group_norm_silu_quantize,
    group_norm_silu_quantize_rejects,
    norm_quantize,
    norm_quantize_rejects,
    quantize_act,
    quantize_act_file,
    quantize_act_rejects,
)


@dataclass(frozen=True)
class Kernel:
    """file: of csrc/cuda, or what finds it; run(kernels, *args), rejects(*args) and file(*args) take the op's arguments.

    alone: whether its kernel computes a call without others.
    """

    file: str | Callable[..., str]
    run: Callable
    rejects: Callable
    alone: bool = True

    def file_of(self, *args) -> str:
        return self.file if isinstance(self.file, str) else self.file(*args)


def residual_kernels(name: str, file: str | Callable[..., str], run: Callable, rejects: Callable, count: int) -> dict[str, Kernel]:
    """The product, and with gate and residual; count: how many arguments the product takes."""
    return {
        name: Kernel(file, run, rejects),
        f"{name}_gate_residual": Kernel(file, with_gate_residual(run, count), with_gate_residual_rejects(rejects, count)),
    }


def product_kernels(
    name: str,
    file: str | Callable[..., str],
    run: Callable,
    rejects: Callable,
    count: int,
    quantizing_file: Callable[..., str] | None = None,
) -> dict[str, Kernel]:
    """Those, and with an activation, quantized for the next layer or not; quantizing_file: of the former, where it is another."""
    quantizing = with_act_quantize(run, count), with_act_quantize_rejects(rejects, count)
    return {
        **residual_kernels(name, file, run, rejects, count),
        f"{name}_act": Kernel(file, with_act(run, count), with_act_rejects(rejects, count)),
        f"{name}_act_quantize": Kernel(quantizing_file or file, *quantizing),
    }


KERNELS: dict[str, Kernel] = {
    **product_kernels("gemm_w4a4", "sm80_gemm_w4a4", gemm_w4a4, gemm_w4a4_rejects, 9),
    **product_kernels("gemm_w8a8", gemm_w8a8_file, gemm_w8a8, gemm_w8a8_rejects, 8, gemm_w8a8_quantizing_file),
    **product_kernels("gemm_nvfp4", "sm120_gemm_nvfp4", gemm_nvfp4, gemm_nvfp4_rejects, 9),
    "quantize_act": Kernel(quantize_act_file, quantize_act, quantize_act_rejects),
    "norm_quantize": Kernel("smxx_norm_quantize", norm_quantize, norm_quantize_rejects),
    "group_norm_silu_quantize": Kernel(
        "smxx_group_norm_quantize", group_norm_silu_quantize, group_norm_silu_quantize_rejects
    ),
    "gemm_w4a8": Kernel(gemm_w4a8_file, gemm_w4a8, gemm_w4a8_rejects, alone=False),
    "gemm_w4a16": Kernel("smxx_gemm_w4a16", gemm_w4a16, gemm_w4a16_rejects),
    "qk_norm_rope": Kernel("smxx_qk_norm_rope", qk_norm_rope, qk_norm_rope_rejects),
    "joint_qkv_norm_rope": Kernel("smxx_qk_norm_rope", joint_qkv_norm_rope, joint_qkv_norm_rope_rejects),
    "rel_l1": Kernel("smxx_cache", rel_l1, empty_rejects),
    "delta_apply": Kernel("smxx_cache", delta_apply, empty_rejects),
    "affine_correct": Kernel("smxx_cache", affine_correct, empty_rejects),
    "forecast": Kernel("smxx_cache", forecast, forecast_rejects),
    **residual_kernels("conv2d", conv2d_file, conv2d, conv2d_rejects, 15),
}


def implementations(kernels: ModuleType) -> dict[str, Callable]:
    """Op name -> its function on this extension module."""
    return {name: partial(kernel.run, kernels) for name, kernel in KERNELS.items()}


def cuda_rejects(kernel: Kernel, *args) -> str | None:
    # Only of a call that it takes can every kernel say which file runs it.
    if reason := kernel.rejects(*args):
        return reason
    first = next(arg for arg in args if isinstance(arg, Tensor))
    return here(kernel.file_of(*args), first, named_backend() == "cuda")


def register() -> None:
    for name, kernel in KERNELS.items():
        one_kernel = kernel.file_of if kernel.alone else names_none
        OPS[name].add("cuda", f"{__package__}.cuda:{name}", partial(cuda_rejects, kernel), one_kernel)
        OPS[name].add("simt", f"{__package__}.simt:{name}", kernel.rejects, one_kernel)
