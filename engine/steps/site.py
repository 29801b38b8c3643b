"""Where a model can be cut: the edges whose value can be forecast while the modules behind them stay idle."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..models.blocks import find_stacks
from ..models.families import PREPARING_STACKS, UNET_BLOCKS, UNETS, BlockStreams, block_streams

KINDS = ("stack", "deep_main", "output")


@dataclass(frozen=True, eq=False)
class Site:
    """name: unique within the model. kind: one of KINDS.

    stack: `modules` are consecutive blocks, `streams` what they hand on; the forecast value is output minus input of the whole
    range, per stream. deep_main: `modules` are the UNet parts a skipped step leaves idle, in the order they run; the forecast
    value is the output of the last of them. output: no modules; the forecast value is what the denoiser returns.
    """

    name: str
    kind: str
    modules: tuple[nn.Module, ...] = ()
    streams: BlockStreams | None = None


@dataclass(frozen=True, eq=False)
class Cut:
    """sites: forecast together. probe: the block a gate asks, always computed. reason: why there is no site, else ""."""

    sites: tuple[Site, ...] = ()
    probe: nn.Module | None = None
    probe_streams: BlockStreams | None = None
    reason: str = ""


def sites_for(model: nn.Module, kind: str = "auto", probes: bool = False, depth: int = 1) -> Cut:
    """The cut of a model; kind "auto" takes deep_main for a UNet and its stacks for anything else.

    probes: leave the first block out, for a gate to ask. A model that offers none gets a cut without sites and the reason.
    """
    if kind == "output":
        return Cut((Site("output", "output"),))
    is_unet = type(model).__name__ in UNETS
    if kind == "deep_main" or (kind == "auto" and is_unet):
        return (
            _deep_main(model, depth)
            if is_unet
            else Cut(reason=f"deep_main needs a UNet out of {UNETS}; {type(model).__name__} came")
        )
    return _stacks(model, probes)


def _stacks(model: nn.Module, probes: bool) -> Cut:
    sites, probe, probe_streams, refused = [], None, None, []
    for stack in find_stacks(model):
        if "." in stack.name or any(word in stack.name for word in PREPARING_STACKS):
            refused.append(f"{stack.name} is not the model's own loop over its latents")
            continue
        streams = block_streams(stack.blocks[0])
        if streams is None:
            refused.append(f"{type(stack.blocks[0]).__name__} hands on streams of an unknown form")
            continue
        blocks = tuple(stack.blocks)
        if probes and probe is None:
            probe, probe_streams, blocks = blocks[0], streams, blocks[1:]
        if blocks:
            sites.append(Site(stack.name, "stack", blocks, streams))
    if not sites:
        return Cut(reason="; ".join(refused) or f"{type(model).__name__} has no repeated blocks")
    return Cut(tuple(sites), probe, probe_streams)


def _deep_main(model: nn.Module, depth: int) -> Cut:
    """The input of up block -depth; deeper down blocks, the middle and deeper up blocks idle (DeepCache, arXiv 2312.00858).

    Depth 0 cuts inside the last up block: only its last residual block, which reads conv_in's residual alone, still runs.
    """
    downs, ups = list(model.down_blocks), list(model.up_blocks)
    if not depth < len(ups) or len(downs) != len(ups):
        return Cut(reason=f"deep_main at depth {depth} needs more than {depth} levels; {type(model).__name__} has {len(ups)}")
    if foreign := [type(block).__name__ for block in (*downs, *ups) if type(block).__name__ not in UNET_BLOCKS]:
        return Cut(reason=f"{foreign[0]} hands on residuals of an unknown form")
    if depth == 0:
        return _last_residual_block(ups[-1], (*downs, *_middle(model), *ups[:-1]))
    needed = sum(len(block.resnets) for block in ups[-depth:])
    offered = 1 + sum(residual_count(block) for block in downs[:depth])
    if offered < needed:
        return Cut(reason=f"up blocks at depth {depth} take {needed} residuals; the down blocks beside them give {offered}")
    idle = (*downs[depth:], *_middle(model), *ups[:-depth])
    return Cut((Site("deep_main", "deep_main", idle),), probe=downs[0])


def _middle(model: nn.Module) -> list[nn.Module]:
    return [model.mid_block] if getattr(model, "mid_block", None) is not None else []


def _last_residual_block(up: nn.Module, outside: tuple[nn.Module, ...]) -> Cut:
    resnets, attentions = list(up.resnets), list(getattr(up, "attentions", None) or ())
    if len(resnets) < 2 or (attentions and len(attentions) != len(resnets)):
        return Cut(reason=f"deep_main at depth 0 needs two residual blocks in a row; {type(up).__name__} has {len(resnets)}")
    inside = zip(resnets[:-1], attentions[:-1]) if attentions else ((resnet,) for resnet in resnets[:-1])
    idle = (*outside, *(module for pair in inside for module in pair))
    return Cut((Site("deep_main", "deep_main", idle),))


def residual_count(down_block: nn.Module) -> int:
    """How many residuals a UNet down block hands to the up path."""
    return len(down_block.resnets) + len(getattr(down_block, "downsamplers", None) or ())
