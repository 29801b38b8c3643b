"""FLUX's single-stream block on fused ops: attention and feed-forward side by side on text and image together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ...ops import attention
from ...ops.operands import GROUP_SIZE
from .groups import Group, outputs, product_of_layer
from .handover import Handover, hand_over
from .low_bit import group_by_input, input_of, is_derived, product_of, release
from .operands import Codes, Input, Norm, Product, side_by_side
from .parts import Heads, Rotary, finite, heads_of, modulation, norm_of, one_each_pair

QKV = ("to_q", "to_k", "to_v")
UP = "proj_mlp"


@dataclass(frozen=True)
class Joined:
    """proj_out on attention and feed-forward side by side.

    attended: columns that come from attention; parts: how each side is quantized by itself. Their codes are joined where scales
    are of groups or segments that no side shares with the other; else both are copied together in 16 bits and quantized.
    """

    input: Input
    attended: int
    parts: tuple[Input, Input]
    product: Product

    @property
    def reads_in_groups(self) -> bool:
        group = GROUP_SIZE.get(self.input.format)
        return group is not None and self.attended % group == 0

    def takes(self, handover: Handover) -> bool:
        """Whether it reads the codes that the feed-forward is handed over in."""
        return self.reads_in_groups or handover.segment_width is not None

    def __call__(self, attended: Tensor, up: Tensor | Codes, gate: Tensor, residual: Tensor) -> Tensor:
        if isinstance(up, Tensor):
            codes = self.input.quantize(torch.cat([attended, up], 1))
        else:
            segments = 1 if self.reads_in_groups else self.attended * len(up[1]) // up[0].shape[1]
            codes = side_by_side(replace(self.parts[0], segments=segments).quantize(attended), up)
        return self.product.gate_residual(codes, gate, residual)


@dataclass(frozen=True)
class Apart:
    """proj_out as two products, one after the other: each input has scales of its own, and nothing is copied together."""

    inputs: tuple[Input, Input]
    products: tuple[Product, Product]

    def takes(self, handover: Handover) -> bool:
        return True

    def __call__(self, attended: Tensor, up: Codes, gate: Tensor, residual: Tensor) -> Tensor:
        for product, codes in zip(self.products, (self.inputs[0].quantize(attended), up), strict=True):
            residual = product.gate_residual(codes, gate, residual)
        return residual


@dataclass(frozen=True)
class SingleStream:
    """adaln: its modulation, which stays a layer; up: the feed-forward's first layer, which is one of the groups'."""

    adaln: nn.Module
    norm: Norm
    groups: tuple[Group, ...]
    heads: Heads
    up: Handover
    out: Joined | Apart

    def __call__(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        texts = encoder_hidden_states.shape[1]
        x = torch.cat([encoder_hidden_states, hidden_states], 1)
        rows = x.reshape(-1, x.shape[-1])
        shift, scale, gate = modulation(self.adaln.linear, self.adaln.silu, temb, 3)
        quantize = partial(Input.norm_quantize, x=rows, norm=self.norm, mod_scale=scale, mod_shift=shift)
        found = outputs(self.groups, quantize, x.dtype, {UP: self.up} if self.out.takes(self.up) else {})
        q, k, v = self.heads.apart(*(found[name].unflatten(0, x.shape[:2]) for name in QKV))
        attended = attention(*self.heads.rotate(q, k, one_each_pair(rotary)), v, None).reshape(len(rows), -1)
        out = finite(self.out(attended, found[UP], gate, rows)).reshape(x.shape)
        return out[:, :texts], out[:, texts:]

    def chosen_anew(self) -> SingleStream:
        """The same where other backends may run."""
        return replace(self, up=self.up.chosen_anew())


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """Name in the block -> the linear layers that the fused block runs itself."""
    return {**{f"attn.{name}": getattr(block.attn, name) for name in QKV}, UP: block.proj_mlp, "proj_out": block.proj_out}


def build(block: nn.Module) -> SingleStream:
    """The operands, from linear layers none of which `low_bit.reason_against` refuses."""
    attn = block.attn
    layers = {**{name: getattr(attn, name) for name in QKV}, UP: block.proj_mlp}
    groups = group_by_input(layers, {UP: "gelu_tanh"})
    out = _out(block.proj_out, attn.to_v.out_features)
    input, product = product_of_layer(groups, UP)
    reader = (out.product, out.input) if isinstance(out, Joined) else (out.products[1], out.inputs[1])
    next = out.parts[1] if isinstance(out, Joined) else out.inputs[1]
    return SingleStream(
        adaln=block.norm,
        norm=norm_of(block.norm.norm),
        groups=groups,
        heads=heads_of(attn, attn.norm_q, attn.norm_k),
        up=hand_over(product, input, next, *reader, block.proj_mlp.weight.dtype),
        out=out,
    )


def _out(linear: nn.Linear, attended: int) -> Joined | Apart:
    """attended: columns that come from attention."""
    input, product = input_of(linear), product_of(linear)
    columns = (0, attended), (attended, linear.in_features)
    inputs = tuple(input.columns(*each) for each in columns)
    if not is_derived(linear):
        return Joined(input, attended, inputs, product)
    release([linear])
    first, second = (product.columns(*each) for each in columns)
    return Apart(inputs, (first, replace(second, bias=product.bias)))
