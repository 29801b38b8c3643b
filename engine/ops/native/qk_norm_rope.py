"""qk_norm_rope on the compiled kernels."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from .operands import addresses, dense, floats, stream_of

MAX_ROW = 2**20


def qk_norm_rope_rejects(q, k, q_weight, k_weight, cos, sin, eps, rope) -> str | None:
    for name, x in (("q", q), ("k", k)):
        if not x.numel():
            return f"{name} must not be empty, got shape {list(x.shape)}"
        if (width := x.shape[2] * x.shape[3]) > MAX_ROW:
            return f"{name} must have at most {MAX_ROW} elements in all heads of a token, got {width}"
    return None


def qk_norm_rope(
    kernels: ModuleType,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor]:
    batch, token_count, _, width = q.shape
    tensors = dict(q=dense(q), k=dense(k), q_weight=dense(q_weight), k_weight=dense(k_weight), cos=dense(cos), sin=dense(sin))
    tensors |= {f"{name}_out": torch.empty(x.shape, dtype=x.dtype, device=x.device) for name, x in (("q", q), ("k", k))}
    at = dict(zip(tensors, addresses(kernels, **tensors), strict=True))
    as_floats = {name: floats(kernels, tensor, at[name]) for name, tensor in tensors.items()}
    sides = []
    for name, weight in (("q", q_weight), ("k", k_weight)):
        heads = tensors[name].shape[2]
        norm_all_heads = weight is not None and weight.shape[0] != width
        sides.append(kernels.RopeSide(as_floats[name], as_floats[f"{name}_weight"], at[f"{name}_out"], heads, norm_all_heads))
    angles = as_floats["cos"], as_floats["sin"]
    arguments = kernels.RopeArguments(*angles, batch * token_count, token_count, width, eps, rope == "half")
    kernels.qk_norm_rope(*sides, arguments, stream_of(q))
    return tensors["q_out"], tensors["k_out"]
