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

    def apart(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """[B, T, H * D] -> views [B, T, H, D]."""
        return tuple(x.unflatten(-1, (-1, self.width)) for x in rows)

    def rotate(self, q: Tensor, k: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """q, k [B, T, H, D] -> normed and rotated; rotary: cos and sin [T, D / 2]."""
        return OPS["qk_norm_rope"](q, k, self.q_weight, self.k_weight, *rotary, self.eps, "interleaved")


QKV = tuple[Tensor, Tensor, Tensor]


def joint(heads: tuple[Heads, Heads], first: QKV, second: QKV, rotary: Rotary) -> QKV:
    """Queries, keys and values of two streams, [B, T, H, D] each, for attention over both; rotary: over the tokens of both."""
    weights = (weight for each in heads for weight in (each.q_weight, each.k_weight))
    return OPS["joint_qkv_norm_rope"](*first, *second, *weights, *rotary, heads[0].eps, "interleaved")


def heads_of(attention: nn.Module, q_norm: nn.RMSNorm, k_norm: nn.RMSNorm) -> Heads:
    return Heads(attention.head_dim, q_norm.weight, k_norm.weight, q_norm.eps)


def reason_against_heads(*norms: nn.Module) -> str | None:
    """norms: of queries and keys of one attention."""
    for norm in norms:
        if type(norm) is not nn.RMSNorm or norm.weight is None or norm.eps is None:
            return f"norms queries or keys by a {type(norm).__name__} without weights or eps"
    eps = {norm.eps for norm in norms}
    return None if len(eps) == 1 else f"norms queries and keys with eps {' and '.join(map(str, sorted(eps)))}"


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
