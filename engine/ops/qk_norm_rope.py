"""RMSNorm of queries and keys, then the rotary embedding, in one pass over both."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim, expect_divides, expect_one_of
from .registry import Op

ROPE_LAYOUTS = ("interleaved", "half")


def rotate(x: Tensor, cos: Tensor, sin: Tensor, rope: str) -> Tensor:
    """Rotate the pairs (2i, 2i+1) when interleaved, (i, i + D/2) when half. x [B, T, H, D], cos and sin [T, D/2]."""
    cos, sin = cos.float().unsqueeze(1), sin.float().unsqueeze(1)
    if rope == "interleaved":
        real, imaginary = x[..., 0::2], x[..., 1::2]
        return torch.stack([real * cos - imaginary * sin, imaginary * cos + real * sin], -1).flatten(-2)
    real, imaginary = x.chunk(2, -1)
    return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], -1)


@Op
def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor]:
    """RMSNorm over each head (weight [D]) or over all heads (weight [H*D]; none: no norm), then RoPE, in float32, rounded once.

    q [B, T, H, D]; k [B, T, Hk, D]; cos, sin [T, D/2], one per pair; rope "interleaved" or "half". Returns both in their dtype.
    """
    outputs = []
    for x, weight in ((q, q_weight), (k, k_weight)):
        y = x.float()
        if weight is not None:
            rows = y if weight.shape[0] == x.shape[3] else y.flatten(2)
            rows = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps) * weight.float()
            y = rows.reshape(x.shape)
        outputs.append(rotate(y, cos, sin, rope).to(x.dtype))
    return outputs[0], outputs[1]


@qk_norm_rope.set_fake
def fake(q, k, q_weight, k_weight, cos, sin, eps, rope):
    return q.new_empty(q.shape), k.new_empty(k.shape)


@qk_norm_rope.set_check
def check(q, k, q_weight, k_weight, cos, sin, eps, rope):
    expect_dim("q", q, 4, *FLOATS)
    batch, tokens, _, width = q.shape
    expect("k", k, (batch, tokens, k.shape[2], width), *FLOATS)
    expect_divides("q", width, 2, "the head width")
    for name, weight, x in (("q_weight", q_weight, q), ("k_weight", k_weight, k)):
        if weight is not None and tuple(weight.shape) not in ((width,), (x.shape[2] * width,)):
            raise ValueError(f"{name}: shape [{width}] or [{x.shape[2] * width}] needed, got {list(weight.shape)}")
    expect("cos", cos, (tokens, width // 2), *FLOATS)
    expect("sin", sin, (tokens, width // 2), *FLOATS)
    expect_one_of("rope", rope, ROPE_LAYOUTS)
