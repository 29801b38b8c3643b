"""PyTorch's attention kernels called one by one, and FlashAttention 3: no process-wide switch is read or changed."""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from ..env import setting
from .attention_choice import AttentionCall, AttentionChoice, choose_attention

FLASH3_MODULE = "flash_attn_interface"
OLDEST_CUDNN = 90000
# Kernels read a bias in vectors of this many elements, so its rows must start at such a multiple.
BIAS_MULTIPLE = 8

aten = torch.ops.aten


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """`ops.attention` on the kernel that HALFBYTE_ATTENTION names, or the fastest here. Raises ValueError when it cannot run."""
    return run(choice_for(q, k, v, mask).kernel, q, k, v, mask, scale)


def choice_for(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> AttentionChoice:
    """The choice for tensors on a GPU, laid out as in `ops.attention`."""
    return _choice(call_of(q, k, v, mask, torch.cuda.get_device_capability(q.device)), wanted())


def call_of(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, capability: tuple[int, int]) -> AttentionCall:
    return AttentionCall(
        capability, q.dtype, q.shape[3], v.shape[3], q.shape[1], k.shape[1], q.shape[2] // k.shape[2], mask is not None
    )


@functools.lru_cache(maxsize=256)
def _choice(call: AttentionCall, kernel: str) -> AttentionChoice:
    return choose_attention(call, kernel, absent())


@functools.cache
def wanted() -> str:
    """The value of HALFBYTE_ATTENTION at the first call."""
    return setting("HALFBYTE_ATTENTION")


@functools.cache
def absent() -> dict[str, str]:
    """Kernel -> why this machine does not have it."""
    found = {}
    if importlib.util.find_spec(FLASH3_MODULE) is None:
        found["flash3"] = f"its package, {FLASH3_MODULE}, is not installed"
    if (version := torch.backends.cudnn.version() or 0) < OLDEST_CUDNN:
        found["cudnn"] = f"cuDNN 9 needed, got {version or 'none'}"
    return found


def run(kernel: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The op on one kernel: tensors and result as in `ops.attention`."""
    if kernel == "flash3":
        return flash3(q, k, v, scale)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    bias = None if mask is None else additive(mask, q, k)
    return BY_HEAD[kernel](q, k, v, bias, scale).transpose(1, 2).contiguous()


def cudnn(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    return aten._scaled_dot_product_cudnn_attention(q, k, v, bias, False, 0.0, False, False, scale=scale)[0]


def flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False, scale=scale)[0]


def efficient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, False, 0.0, False, scale=scale)[0]


def math(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return aten._scaled_dot_product_attention_math(q, k, v, bias, 0.0, False, None, scale=scale, enable_gqa=grouped)[0]


BY_HEAD = {"cudnn": cudnn, "flash": flash, "efficient": efficient, "math": math}


def flash3(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    out = importlib.import_module(FLASH3_MODULE).flash_attn_func(q, k, v, softmax_scale=scale)
    # Releases differ in whether the log-sum-exp comes with it.
    return (out[0] if isinstance(out, tuple) else out).contiguous()


def additive(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The mask as a bias [B, H, T, S] in q's dtype, its rows aligned as kernels load them; q [B, H, T, D], k [B, H, S, D]."""
    keys = k.shape[2]
    mask = mask.expand(*mask.shape[:-1], keys)
    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, -torch.inf)
    else:
        bias = mask.to(q.dtype)
    if pad := -keys % BIAS_MULTIPLE:
        bias = F.pad(bias, (0, pad))[..., :keys]
    return bias.expand(*q.shape[:3], keys)
