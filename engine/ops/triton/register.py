"""Which ops have Triton kernels, and the registration of the backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..registry import OPS
from .conv2d import TABLE as CONV2D
from .device import reason_against_device
from .fold_weight import FOLD_WEIGHT
from .gemm import GEMM_NVFP4, GEMM_W4A4, GEMM_W4A8, GEMM_W8A8
from .gemm_w4a16 import TABLE as GEMM_W4A16
from .quantize import GROUP_NORM, NORM_QUANTIZE, QUANTIZE_ACT
from .one_launch import one_launch
from .small import CACHE, QK_NORM_ROPE
from .tuned import hand_in_cache_folder

Rejects = Callable[..., str | None]

# Op -> what its kernel rejects beside the device; the kernel is the function of that name in triton_kernels/<file>.py.
TABLES: dict[str, dict[str, Rejects]] = {
    "fold_weight": FOLD_WEIGHT,
    "gemm_nvfp4": GEMM_NVFP4,
    "gemm_w4a4": GEMM_W4A4,
    "gemm_w4a8": GEMM_W4A8,
    "gemm_w8a8": GEMM_W8A8,
    "quantize_act": QUANTIZE_ACT,
    "norm_quantize": NORM_QUANTIZE,
    "group_norm_silu_quantize": GROUP_NORM,
    "qk_norm_rope": QK_NORM_ROPE,
    "cache": CACHE,
    "gemm_w4a16": GEMM_W4A16,
    "conv2d": CONV2D,
}


def triton_rejects(rejects: Rejects, *args) -> str | None:
    first = next(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
    if reason := reason_against_device(first) or rejects(*args):
        return reason
    hand_in_cache_folder()
    return None


def kernel_of(file: str, name: str, *args) -> str | None:
    """A product is one kernel with all that follows it, unless its weight or its output takes a launch of its own."""
    if name in GEMM_W4A8:
        return None
    return file if not name.endswith("_act_quantize") or one_launch(name, *args) else None


def register() -> None:
    for file, table in TABLES.items():
        for name, rejects in table.items():
            target = f"halfbyte.triton_kernels.{file}:{name}"
            OPS[name].add("triton", target, partial(triton_rejects, rejects), partial(kernel_of, file, name))
