"""Scaled dot-product attention on [batch, tokens, heads, width]; the reference is PyTorch's own dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATS, expect, expect_dim
from .registry import Op


@Op
def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale + mask) v, contiguous.

    q [B, T, H, D]; k [B, S, Hk, D], v [B, S, Hk, Dv], where Hk divides H; mask bool (true takes part) or float, broadcastable to
    [B, H, T, S]; scale 1/sqrt(D) when None. Returns [B, T, H, Dv].
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


@attention.set_fake
def fake(q, k, v, mask, scale=None):
    return q.new_empty((*q.shape[:3], v.shape[3]))


@attention.set_check
def check(q, k, v, mask, scale=None):
    expect_dim("q", q, 4, *FLOATS)
    expect_dim("k", k, 4)
    batch, tokens, heads, width = q.shape
    expect("k", k, (batch, k.shape[1], k.shape[2], width), q.dtype)
    expect("v", v, (batch, k.shape[1], k.shape[2], v.shape[-1]), q.dtype)
    if heads % k.shape[2]:
        raise ValueError(f"k: a number of heads that divides the {heads} of q needed, got {k.shape[2]}")


def rejects(q, k, v, mask, scale=None):
    return None if q.is_cuda else f"tensors on a GPU needed, got them on {q.device}"


# Asking for Triton must not leave a block without attention, of which PyTorch's kernels are the fast ones.
for backend in ("cuda", "triton"):
    attention.add(backend, f"{__package__}.attention_gpu:attention", rejects)
