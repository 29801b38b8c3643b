"""What both kinds of FLUX blocks are made of, in structure and in arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...ops import OPS
from .operands import Norm

ARGUMENTS = ["hidden_states", "encoder_hidden_states", "temb", "image_rotary_emb", "joint_attention_kwargs"]
PROCESSOR = "FluxAttnProcessor"

Rotary = tuple[Tensor, Tensor]


def reason_against_norm(norm: nn.Module) -> str | None:
    return None if type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 1 else f"is a {type(norm).__name__}"


def norm_of(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.eps, norm.weight, norm.bias)


@dataclass(frozen=True)
class Heads:
    """RMSNorm weights [D] of queries and keys."""

    width: int
    q_weight: Tensor
    k_weight: Tensor
    eps: float

    def rotate(self, q: Tensor, k: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """q, k [B, T, H * D] -> normed and rotated [B, T, H, D]; rotary: cos and sin [T, D / 2]."""
        q, k = (x.unflatten(-1, (-1, self.width)) for x in (q, k))
        return OPS["qk_norm_rope"](q, k, self.q_weight, self.k_weight, *rotary, self.eps, "interleaved")


def heads_of(attention: nn.Module, q_norm: nn.RMSNorm, k_norm: nn.RMSNorm) -> Heads:
    return Heads(attention.head_dim, q_norm.weight, k_norm.weight, q_norm.eps)


def reason_against_heads(q_norm: nn.Module, k_norm: nn.Module) -> str | None:
    for norm in (q_norm, k_norm):
        if type(norm) is not nn.RMSNorm or norm.weight is None or norm.eps is None:
            return f"norms queries or keys by a {type(norm).__name__} without weights or eps"
    return None if q_norm.eps == k_norm.eps else f"norms queries with eps {q_norm.eps} and keys with {k_norm.eps}"


def one_each_pair(rotary: Rotary) -> Rotary:
    """diffusers repeats cos and sin [T, D] for both of a pair; the op takes them once."""
    cos, sin = rotary
    return cos[:, ::2].contiguous(), sin[:, ::2].contiguous()


def modulation(linear: nn.Module, activation: nn.Module, temb: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The adaLN vectors [B, K]."""
    return linear(activation(temb)).chunk(parts, dim=1)


def finite(x: Tensor) -> Tensor:
    """float16 is clipped to its largest value, as diffusers does behind a residual."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x
