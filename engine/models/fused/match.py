"""Which blocks can run on fused ops: read from their modules' names and types, never from where they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..families import argument_names
from . import double_stream, single_stream
from .low_bit import reason_against as reason_against_linear
from .parts import ARGUMENTS, PROCESSOR, reason_against_heads, reason_against_norm


@dataclass(frozen=True)
class Kind:
    """A kind of block.

    modules: name -> class of every module but linear layers and what computes the modulation; adaln: names of those whose layers
    do; heads: the norms of queries and keys; linears(block): name -> layer; build(block): the fused block, called with
    (hidden_states, encoder_hidden_states, temb, rotary).
    """

    name: str
    modules: Mapping[str, str]
    adaln: tuple[str, ...]
    heads: tuple[str, ...]
    linears: Callable[[nn.Module], dict[str, nn.Module]]
    build: Callable[[nn.Module], Callable[..., Any]]


FEED_FORWARD = {"": "FeedForward", ".net": "ModuleList", ".net.0": "GELU", ".net.1": "Dropout"}
KINDS = (
    Kind(
        "double stream",
        {
            "norm1": "AdaLayerNormZero", "norm1.norm": "LayerNorm",
            "norm1_context": "AdaLayerNormZero", "norm1_context.norm": "LayerNorm",
            "attn": "FluxAttention", "attn.norm_q": "RMSNorm", "attn.norm_k": "RMSNorm", "attn.norm_added_q": "RMSNorm",
            "attn.norm_added_k": "RMSNorm", "attn.to_out": "ModuleList", "attn.to_out.1": "Dropout",
            "norm2": "LayerNorm", "norm2_context": "LayerNorm",
            **{f"{name}{part}": kind for name in ("ff", "ff_context") for part, kind in FEED_FORWARD.items()},
        },
        ("norm1", "norm1_context"),
        ("attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k"),
        double_stream.linears,
        double_stream.build,
    ),
    Kind(
        "single stream",
        {
            "norm": "AdaLayerNormZeroSingle", "norm.norm": "LayerNorm", "act_mlp": "GELU",
            "attn": "FluxAttention", "attn.norm_q": "RMSNorm", "attn.norm_k": "RMSNorm",
        },
        ("norm",),
        ("attn.norm_q", "attn.norm_k"),
        single_stream.linears,
        single_stream.build,
    ),
)  # fmt: skip


def match(block: nn.Module) -> Kind | None:
    """The kind whose modules, all of them and no others, the block has."""
    if argument_names(block) != ARGUMENTS:
        return None
    return next((kind for kind in KINDS if _has_structure(block, kind)), None)


def _has_structure(block: nn.Module, kind: Kind) -> bool:
    found = dict(block.named_modules())
    if any(type(found.get(name)).__name__ != expected for name, expected in kind.modules.items()):
        return False
    try:
        own = set(kind.linears(block))
    except AttributeError:
        return False
    adaln = {f"{name}.{part}" for name in kind.adaln for part in ("silu", "linear")}
    # An adapter wraps a linear layer in modules of its own, which say no by themselves at every call.
    known = {"", *kind.modules, *own}
    return {name for name in found if not name.startswith(tuple(f"{name}." for name in own | adaln))} == known | adaln


def reason_against_block(block: nn.Module, kind: Kind) -> str | None:
    """One sentence why this block, as it is now, cannot run fused, or None."""
    if reason := reason_against_attention(block.attn):
        return reason
    for name, module in bypassed(block, kind).items():
        if is_touched(module):
            return f"{name} has hooks or another forward"
        if type(module) is nn.LayerNorm and (reason := reason_against_norm(module)):
            return f"{name} {reason}"
        if type(module) is nn.Dropout and module.p:
            return f"{name} drops values"
        if type(module).__name__ == "GELU" and module.approximate != "tanh":
            return f"{name} is not the tanh form of GELU"
    if reason := reason_against_heads(*map(block.get_submodule, kind.heads)):
        return f"its attention {reason}"
    if any(getattr(block.get_submodule(name), "emb", None) is not None for name in kind.adaln):
        return "its modulation embeds timesteps itself"
    for name, linear in kind.linears(block).items():
        if reason := ("has hooks or another forward" if is_touched(linear) else reason_against_linear(linear)):
            return f"{name} {reason}"
    return None


def reason_against_attention(attn: nn.Module) -> str | None:
    """One sentence why the attention, as it is now, is not the plain one, or None."""
    processor = attn.processor
    changed = (getattr(processor, name, None) for name in ("_attention_backend", "_parallel_config"))
    if type(processor).__name__ != PROCESSOR or any(changed):
        return "its attention was given a processor, a backend or a parallel layout of its own"
    return "its projections were fused by diffusers" if attn.fused_projections else None


def bypassed(block: nn.Module, kind: Kind) -> dict[str, nn.Module]:
    """Name -> the modules that a fused block does not call."""
    return {name: block.get_submodule(name) for name in kind.modules}


def is_touched(module: nn.Module) -> bool:
    """Whether calling the module would run more than its class's forward."""
    return bool("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)
