"""FLUX's single-stream block on fused ops: attention and feed-forward side by side on text and image together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ...ops import attention
from .low_bit import group_by_input, input_of, is_derived, product_of, release
from .operands import Group, Input, Norm, Product, outputs
from .parts import Heads, Rotary, finite, heads_of, modulation, norm_of, one_each_pair

QKV = ("to_q", "to_k", "to_v")
UP = "proj_mlp"


@dataclass(frozen=True)
class Joined:
    """proj_out on attention and feed-forward side by side, copied together in 16 bits."""

    input: Input
    product: Product

    def __call__(self, attended: Tensor, up: Tensor, gate: Tensor, residual: Tensor) -> Tensor:
        return self.product.gate_residual(self.input.quantize(torch.cat([attended, up], 1)), gate, residual)


@dataclass(frozen=True)
class Apart:
    """proj_out as two products, one after the other: each input has scales of its own, and nothing is copied together."""

    inputs: tuple[Input, Input]
    products: tuple[Product, Product]

    def __call__(self, attended: Tensor, up: Tensor, gate: Tensor, residual: Tensor) -> Tensor:
        for input, product, x in zip(self.inputs, self.products, (attended, up), strict=True):
            residual = product.gate_residual(input.quantize(x), gate, residual)
        return residual


@dataclass(frozen=True)
class SingleStream:
    """adaln: its modulation, which stays a layer."""

    adaln: nn.Module
    norm: Norm
    groups: tuple[Group, ...]
    heads: Heads
    out: Joined | Apart

    def __call__(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        texts = encoder_hidden_states.shape[1]
        x = torch.cat([encoder_hidden_states, hidden_states], 1)
        rows = x.reshape(-1, x.shape[-1])
        shift, scale, gate = modulation(self.adaln.linear, self.adaln.silu, temb, 3)
        quantize = partial(Input.norm_quantize, x=rows, norm=self.norm, mod_scale=scale, mod_shift=shift)
        found = outputs(self.groups, quantize, x.dtype)
        q, k, v = (found[name].unflatten(0, x.shape[:2]) for name in QKV)
        q, k = self.heads.rotate(q, k, one_each_pair(rotary))
        attended = attention(q, k, v.unflatten(-1, (-1, self.heads.width)), None).reshape(len(rows), -1)
        out = finite(self.out(attended, found[UP], gate, rows)).reshape(x.shape)
        return out[:, :texts], out[:, texts:]

    def chosen_anew(self) -> SingleStream:
        """The same where other backends may run: nothing here depends on them."""
        return self


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """Name in the block -> the linear layers that the fused block runs itself."""
    return {**{f"attn.{name}": getattr(block.attn, name) for name in QKV}, UP: block.proj_mlp, "proj_out": block.proj_out}


def build(block: nn.Module) -> SingleStream:
    """The operands, from linear layers none of which `low_bit.reason_against` refuses."""
    attn = block.attn
    layers = {**{name: getattr(attn, name) for name in QKV}, UP: block.proj_mlp}
    return SingleStream(
        adaln=block.norm,
        norm=norm_of(block.norm.norm),
        groups=group_by_input(layers, {UP: "gelu_tanh"}),
        heads=heads_of(attn, attn.norm_q, attn.norm_k),
        out=_out(block.proj_out, attn.to_v.out_features),
    )


def _out(linear: nn.Linear, attended: int) -> Joined | Apart:
    """attended: columns that come from attention."""
    input, product = input_of(linear), product_of(linear)
    if not is_derived(linear):
        return Joined(input, product)
    release([linear])
    columns = (0, attended), (attended, linear.in_features)
    first, second = (product.columns(*each) for each in columns)
    return Apart(tuple(input.columns(*each) for each in columns), (first, replace(second, bias=product.bias)))
