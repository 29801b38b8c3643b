"""FLUX's double-stream block on fused ops: image and text each with their own layers, one attention over both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from ...ops import attention
from .low_bit import group_by_input, input_of, product_of
from .groups import Group, outputs
from .handover import Handover, hand_over
from .operands import Input, Norm, Product
from .parts import Heads, Rotary, finite, heads_of, joint, modulation, norm_of, one_each_pair

QKV = {"image": ("to_q", "to_k", "to_v"), "text": ("add_q_proj", "add_k_proj", "add_v_proj")}


@dataclass(frozen=True)
class Stream:
    """One stream's operands; adaln: its modulation, which stays a layer."""

    adaln: nn.Module
    norm: Norm
    qkv: tuple[Group, ...]
    names: tuple[str, str, str]
    heads: Heads
    out_input: Input
    out: Product
    ff_norm: Norm
    ff: Handover
    ff_out: Product

    def queries_keys_values(self, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        """x [B, T, K] -> three times [B, T, H, D], as they leave the products."""
        rows = x.reshape(-1, x.shape[-1])
        quantize = partial(Input.norm_quantize, x=rows, norm=self.norm, mod_scale=scale, mod_shift=shift)
        found = outputs(self.qkv, quantize, x.dtype)
        return self.heads.apart(*(found[name].unflatten(0, x.shape[:2]) for name in self.names))

    def finish(
        self, x: Tensor, attended: Tensor, gate: Tensor, ff_shift: Tensor, ff_scale: Tensor, ff_gate: Tensor
    ) -> Tensor:
        """x [B, T, K] and what it attended to [B, T, H * D] -> the stream behind the block."""
        rows = x.reshape(-1, x.shape[-1])
        rows = self.out.gate_residual(self.out_input.quantize(attended.reshape(len(rows), -1)), gate, rows)
        up = self.ff.codes(self.ff.input.norm_quantize(rows, self.ff_norm, ff_scale, ff_shift))
        return self.ff_out.gate_residual(up, ff_gate, rows).reshape(x.shape)


@dataclass(frozen=True)
class DoubleStream:
    image: Stream
    text: Stream

    def __call__(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        streams = {"text": (self.text, encoder_hidden_states), "image": (self.image, hidden_states)}
        texts = encoder_hidden_states.shape[1]
        parts = {name: modulation(stream.adaln.linear, stream.adaln.silu, temb, 6) for name, (stream, _) in streams.items()}
        sides = [
            stream.queries_keys_values(x, scale=parts[name][1], shift=parts[name][0]) for name, (stream, x) in streams.items()
        ]
        q, k, v = joint((self.text.heads, self.image.heads), *sides, one_each_pair(rotary))
        attended = attention(q, k, v, None).flatten(2)
        text = self.text.finish(encoder_hidden_states, attended[:, :texts], *parts["text"][2:])
        image = self.image.finish(hidden_states, attended[:, texts:], *parts["image"][2:])
        return finite(text), image

    def chosen_anew(self) -> DoubleStream:
        """The same where other backends may run."""
        return DoubleStream(*(replace(stream, ff=stream.ff.chosen_anew()) for stream in (self.image, self.text)))


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """Name in the block -> the linear layers that the fused block runs itself."""
    attn = block.attn
    named = {f"attn.{name}": getattr(attn, name) for names in QKV.values() for name in names}
    feed_forwards = {name: getattr(block, name).net for name in ("ff", "ff_context")}
    return {
        **named,
        "attn.to_out.0": attn.to_out[0],
        "attn.to_add_out": attn.to_add_out,
        **{f"{name}.net.0.proj": net[0].proj for name, net in feed_forwards.items()},
        **{f"{name}.net.2": net[2] for name, net in feed_forwards.items()},
    }


def build(block: nn.Module) -> DoubleStream:
    """The operands, from linear layers none of which `low_bit.reason_against` refuses."""
    attn = block.attn
    image = _stream(
        attn, "image", block.norm1, block.norm2, block.ff, heads_of(attn, attn.norm_q, attn.norm_k), attn.to_out[0]
    )
    text = _stream(
        attn, "text", block.norm1_context, block.norm2_context, block.ff_context,
        heads_of(attn, attn.norm_added_q, attn.norm_added_k), attn.to_add_out,
    )  # fmt: skip
    return DoubleStream(image, text)


def _stream(
    attn: nn.Module, name: str, adaln: nn.Module, ff_norm: nn.LayerNorm, feed_forward: nn.Module, heads: Heads, out: nn.Linear
) -> Stream:
    up, down = feed_forward.net[0].proj, feed_forward.net[2]
    up_product, down_product, down_input = product_of(up, "gelu_tanh"), product_of(down), input_of(down)
    return Stream(
        adaln=adaln,
        norm=norm_of(adaln.norm),
        qkv=group_by_input({layer: getattr(attn, layer) for layer in QKV[name]}),
        names=QKV[name],
        heads=heads,
        out_input=input_of(out),
        out=product_of(out),
        ff_norm=norm_of(ff_norm),
        ff=hand_over(up_product, input_of(up), down_input, down_product, down_input, up.weight.dtype),
        ff_out=down_product,
    )
