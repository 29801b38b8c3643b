"""What each linear and convolution of a denoiser does, read from names and structure, and which layers share one input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

ROLES = ("adaln", "qkv", "attention_out", "ff_up", "ff_down_gelu", "ff_down", "conv3x3", "conv1x1", "embed", "other")

# First match wins. Each row: pattern on the dotted name, role, the fact in words.
_ANYWHERE = (
    (r"(^|\.)\w*embed(der|ding|dings)?(_\w+)?(\.|$)", "embed", "it is part of an embedder"),
    (r"(^|\.)(img_in|txt_in|\w*caption_proj\w*)(\.|$)", "embed", "it is part of an embedder"),
    (r"(^|\.)(time_step_proj|encoder_hid_proj|distilled_guidance_layer)(\.|$)", "embed", "it is part of an embedder"),
    (r"(^|\.)time_emb_proj$", "embed", "it projects the timestep into a residual block"),
    (r"(^|\.)(conv|nin)_shortcut$", "embed", "it is the shortcut of a residual block"),
    (r"(^|\.)(down|up)samplers?\.", "embed", "it resamples the feature map"),
    (r"stream_modulation\w*\.", "adaln", "it maps the timestep to the modulation of every block"),
)
_IN_BLOCK = (
    (r"(^|\.)(\w*norm\w*|\w*_mod|\w*modulation)\.", "adaln", "it maps the timestep to scales, shifts and gates"),
    (r"(^|\.)(to_(q|k|v|kv|qkv)|add_(q|k|v)_proj|to_added_qkv|to_qkv_mlp_proj)$", "qkv", "it makes queries, keys or values"),
    (r"(^|\.)(to_out(\.0)?|to_add_out)$", "attention_out", "it is the output of an attention"),
    (r"(^|\.)(net\.0\.proj|proj_mlp|fc1|linear_in)$", "ff_up", "it opens a feed-forward"),
    (r"(^|\.)feed_forward\.(w1|w3|linear_1|linear_3)$", "ff_up", "it opens a feed-forward"),
    (r"(^|\.)ff\w*\.linear_(1|2)$", "ff_up", "it opens a feed-forward"),
    (r"(^|\.)(net\.2|fc2|linear_out|out_projection)$", "ff_down", "it closes a feed-forward"),
    (r"(^|\.)feed_forward\.(w2|linear_2)$", "ff_down", "it closes a feed-forward"),
)
# Leaf names that read one tensor; the first of a row owns what the group shares.
_SHARED_INPUT = (
    ("to_q", "to_k", "to_v"),
    ("add_q_proj", "add_k_proj", "add_v_proj"),
    ("feed_forward.w1", "feed_forward.w3"),
    ("feed_forward.linear_1", "feed_forward.linear_3"),
    ("ff.linear_1", "ff.linear_2"),
    ("ff_context.linear_1", "ff_context.linear_2"),
)
# Activation classes whose output is never below -0.17.
_GELU_CLASSES = ("GELU", "ApproximateGELU")


@dataclass(frozen=True)
class LayerSite:
    """One nn.Linear or nn.Conv2d: its dotted name, role, the group of layers that read the same input, and the block it is in.

    input_group: the name of the group's first layer (its own name when it shares with none). block: the entry of the outermost
    list of blocks, or the top-level child for a layer outside. fact: why it has this role, as half a sentence.
    """

    name: str
    module: nn.Module
    role: str
    input_group: str
    block: str
    fact: str


def layer_sites(model: nn.Module) -> list[LayerSite]:
    """Every linear and convolution of the model in definition order; works on the meta device."""
    blocks = _block_names(model)
    owners = {name.rpartition(".")[0].rpartition(".")[0] for name in blocks}
    sites = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or ".lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        block = next((prefix for prefix in _prefixes(plain) if prefix in blocks), None)
        role, fact = _role(model, plain, module, block is not None, plain.rpartition(".")[0] in owners)
        group = _input_group(model, plain) if role in ("qkv", "ff_up") else plain
        sites.append(LayerSite(name, module, role, group, block or plain.partition(".")[0], fact))
    return sites


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def _block_names(model: nn.Module) -> set[str]:
    """Names of list entries that hold at least two layers each: transformer blocks, residual blocks, lists of either."""
    return {
        f"{name}.{index}"
        for name, modules in model.named_modules()
        if isinstance(modules, nn.ModuleList)
        for index, entry in enumerate(modules)
        if sum(isinstance(module, nn.Linear | nn.Conv2d) for module in entry.modules()) >= 2
    }


def _role(model: nn.Module, name: str, module: nn.Module, in_block: bool, owns_blocks: bool) -> tuple[str, str]:
    for pattern, role, fact in _ANYWHERE + (_IN_BLOCK if in_block and not owns_blocks else ()):
        if re.search(pattern, name):
            if role == "ff_down" and _follows_gelu(model, name):
                return "ff_down_gelu", "it closes a feed-forward and its input is the output of a GELU"
            return role, fact
    if not in_block:
        return "embed", "it stands outside the repeated blocks"
    if owns_blocks:
        return "embed", "it leads into or out of a list of blocks"
    if isinstance(module, nn.Conv2d) and module.kernel_size in ((1, 1), (3, 3)):
        size = "x".join(map(str, module.kernel_size))
        return f"conv{size}", f"it is a {size} convolution of a block"
    return "other", "it is a layer of a block"


def _follows_gelu(model: nn.Module, name: str) -> bool:
    """Whether the layer is entry 2 of a diffusers FeedForward whose entry 0 is a plain GELU."""
    net, _, index = name.rpartition(".")
    return index == "2" and type(model.get_submodule(f"{net}.0")).__name__ in _GELU_CLASSES


def _input_group(model: nn.Module, name: str) -> str:
    for leaves in _SHARED_INPUT:
        leaf = next((leaf for leaf in leaves if name.endswith(f".{leaf}")), None)
        if leaf is None:
            continue
        stem = name.removesuffix(leaf)
        members = [other for other in leaves if _has(model, stem + other)]
        if leaves[0] == "to_q" and leaves[0] in members and _is_cross_attention(model, stem.rstrip(".")):
            members = [leaf] if leaf == "to_q" else [other for other in members if other != "to_q"]
        return stem + members[0]
    return name


def _has(model: nn.Module, name: str) -> bool:
    parent, _, leaf = name.rpartition(".")
    return isinstance(getattr(model.get_submodule(parent), leaf, None), nn.Module)


def _is_cross_attention(model: nn.Module, name: str) -> bool:
    """Keys and values read another tensor than queries: said by the module, its place in the block, or unequal widths."""
    attention = model.get_submodule(name)
    widths = {getattr(getattr(attention, leaf), "in_features", None) for leaf in ("to_q", "to_k")}
    return bool(getattr(attention, "is_cross_attention", False)) or name.endswith("attn2") or len(widths) > 1
