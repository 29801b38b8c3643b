"""Queries, keys and values of two streams for one attention over both: norms, rotary embedding and joining in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim, expect_divides, expect_one_of
from .qk_norm_rope import ROPE_LAYOUTS, qk_norm_rope
from .registry import Op


@Op
def joint_qkv_norm_rope(
    first_q: Tensor,
    first_k: Tensor,
    first_v: Tensor,
    second_q: Tensor,
    second_k: Tensor,
    second_v: Tensor,
    first_q_weight: Tensor,
    first_k_weight: Tensor,
    second_q_weight: Tensor,
    second_k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    rope: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`qk_norm_rope` of each stream with its own RMSNorm weights [D], and the first stream's tokens before the second's.

    q [B, T, H, D]; k, v [B, T, Hk, D], of one dtype; T may differ between streams; cos, sin [T1 + T2, D/2], one per pair; rope
    "interleaved" or "half". Returns q, k and v [B, T1 + T2, ..., D]; values are copied.
    """
    length = first_q.shape[1]
    first = qk_norm_rope.reference(first_q, first_k, first_q_weight, first_k_weight, cos[:length], sin[:length], eps, rope)
    second = qk_norm_rope.reference(second_q, second_k, second_q_weight, second_k_weight, cos[length:], sin[length:], eps, rope)
    q, k = (torch.cat(pair, 1) for pair in zip(first, second, strict=True))
    return q, k, torch.cat([first_v, second_v], 1)


@joint_qkv_norm_rope.set_fake
def fake(first_q, first_k, first_v, second_q, second_k, second_v, *rest):
    pairs = (first_q, second_q), (first_k, second_k), (first_v, second_v)
    return tuple(a.new_empty(a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]) for a, b in pairs)


@joint_qkv_norm_rope.set_check
def check(
    first_q, first_k, first_v, second_q, second_k, second_v,
    first_q_weight, first_k_weight, second_q_weight, second_k_weight, cos, sin, eps, rope,
):  # fmt: skip
    expect_dim("first_q", first_q, 4, *FLOATS)
    expect_dim("first_k", first_k, 4)
    expect_dim("second_q", second_q, 4)
    batch, first_tokens, heads, width = first_q.shape
    key_heads, second_tokens = first_k.shape[2], second_q.shape[1]
    expect_divides("first_q", width, 2, "the head width")
    for stream, tokens, queries, keys, values in (
        ("first", first_tokens, first_q, first_k, first_v), ("second", second_tokens, second_q, second_k, second_v)
    ):  # fmt: skip
        expect(f"{stream}_q", queries, (batch, tokens, heads, width), first_q.dtype)
        expect(f"{stream}_k", keys, (batch, tokens, key_heads, width), first_q.dtype)
        expect(f"{stream}_v", values, (batch, tokens, key_heads, width), first_q.dtype)
    weights = {"first_q": first_q_weight, "first_k": first_k_weight, "second_q": second_q_weight, "second_k": second_k_weight}
    for name, weight in weights.items():
        expect(f"{name}_weight", weight, (width,), *FLOATS)
    for name, angles in (("cos", cos), ("sin", sin)):
        expect(name, angles, (first_tokens + second_tokens, width // 2), *FLOATS)
    expect_one_of("rope", rope, ROPE_LAYOUTS)
