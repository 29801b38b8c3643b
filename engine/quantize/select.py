"""Decide for every layer of a model which format it gets, why, and what that takes in bytes; works on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from ..formats import LayerFormat
from ..models.layer_roles import LayerSite, layer_sites
from .recipe import Recipe, get_recipe
from .shift import act_shift

COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RANK_MULTIPLE = 8


@dataclass(frozen=True)
class Decision:
    """What one layer becomes. layer_format None: it stays float. reason: one sentence.

    shape: of the weight. stored_bytes, float_bytes: of the weight with everything stored for it, without the bias; the first
    layer of an input_group counts the proj_down they share.
    """

    name: str
    role: str
    input_group: str
    shape: tuple[int, ...]
    layer_format: LayerFormat | None
    reason: str
    stored_bytes: int
    float_bytes: int

    @property
    def sizes(self) -> tuple[int, int, tuple[int, int]]:
        """out_features, in_features and kernel, the arguments of `LayerFormat.tensors`."""
        return self.shape[0], self.shape[1], tuple(self.shape[2:]) or (1, 1)


def decide(model: nn.Module, recipe: str | Recipe, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Decision]:
    """One Decision per nn.Linear and nn.Conv2d, in definition order.

    include: names or glob patterns of layers to quantize although their role says float; one that does not fit is a ValueError.
    exclude: names or patterns of layers to keep float; wins over include. A pattern that matches no layer is a ValueError.
    """
    recipe = get_recipe(recipe)
    sites = layer_sites(model)
    for field, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(site.name, pattern) for site in sites):
                raise ValueError(f"{field}: the name or pattern of a linear or convolution needed, {pattern!r} matches none")
    ranks = _group_ranks(sites, recipe)
    decisions, owned = [], set()
    for site in sites:
        wanted = any(fnmatchcase(site.name, pattern) for pattern in include)
        if any(fnmatchcase(site.name, pattern) for pattern in exclude):
            decision = _float(site, "it was excluded")
        else:
            decision = _decide(site, recipe, ranks[site.input_group], wanted, site.input_group not in owned)
        if decision.layer_format is not None:
            owned.add(site.input_group)
        decisions.append(decision)
    return decisions


def model_bytes(model: nn.Module, decisions: Sequence[Decision]) -> tuple[int, int]:
    """Bytes of all parameters and buffers of a float model: after the decisions, and before."""
    before = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    return before + sum(decision.stored_bytes - decision.float_bytes for decision in decisions), before


def _decide(site: LayerSite, recipe: Recipe, rank: int, wanted: bool, owns_down: bool) -> Decision:
    if site.role == "embed" and not wanted:
        return _float(site, site.fact)
    if site.role == "adaln":
        layer_format = recipe.adaln
        if layer_format is None and not wanted:
            return _float(site, site.fact)
    else:
        layer_format = None
    if layer_format is None:
        shift = act_shift(site.role, recipe.activation) if recipe.shift else 0.0
        layer_format = LayerFormat(recipe.weight, recipe.activation, rank, recipe.smooth, shift, recipe.four_over_six)
    decision = _float(site, "")
    against = _reason_against(site, layer_format, decision)
    if against is None:
        stored = layer_format.stored_bytes(*decision.sizes, site.module.weight.dtype, owns_down)
        if stored < decision.float_bytes or wanted:
            return replace(decision, layer_format=layer_format, reason=_describe(site, layer_format, recipe), stored_bytes=stored)
        against = f"it would take {stored} bytes, no less than the {decision.float_bytes} of its float weight"
    if wanted:
        raise ValueError(f"include: {site.name} cannot be stored as {layer_format.weight}: {against}")
    return _float(site, against)


def _float(site: LayerSite, why: str) -> Decision:
    weight = site.module.weight
    size = weight.numel() * weight.element_size()
    return Decision(site.name, site.role, site.input_group, tuple(weight.shape), None, f"stays float: {why}", size, size)


def _reason_against(site: LayerSite, layer_format: LayerFormat, decision: Decision) -> str | None:
    module = site.module
    if module.weight.dtype not in COMPUTE_DTYPES:
        return f"its weight is {str(module.weight.dtype).removeprefix('torch.')}, not a 16- or 32-bit float"
    if isinstance(module, nn.Conv2d):
        if module.groups != 1:
            return f"it is a convolution in {module.groups} groups"
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return f"its padding is {module.padding!r} in mode {module.padding_mode!r}, not a number of zeros"
    return layer_format.reason_against(*decision.sizes)


def _group_ranks(sites: Sequence[LayerSite], recipe: Recipe) -> dict[str, int]:
    """The rank of each input group: the recipe's, at most a quarter of the smallest side, in multiples of 8.

    At a quarter the branch has as many bytes as the 4-bit codes have twice over; beyond, 8 bits per weight are cheaper.
    """
    smallest: dict[str, int] = {}
    for site in sites:
        weight = site.module.weight
        side = min(weight.shape[0], weight[0].numel())
        smallest[site.input_group] = min(side, smallest.get(site.input_group, side))
    return {group: min(recipe.rank, side // 4 // RANK_MULTIPLE * RANK_MULTIPLE) for group, side in smallest.items()}


def _describe(site: LayerSite, layer_format: LayerFormat, recipe: Recipe) -> str:
    activation = f"{layer_format.activation} activations" if layer_format.activation else "16-bit activations"
    parts = [f"{layer_format.weight} with {activation}"]
    if layer_format.rank:
        cut = f" (cut from {recipe.rank} for its size)" if layer_format.rank < recipe.rank else ""
        parts.append(f"rank {layer_format.rank}{cut}")
    parts += ["smoothed"] if layer_format.smooth else []
    parts += [f"input shifted by {layer_format.act_shift:g}"] if layer_format.act_shift else []
    return f"{', '.join(parts)}: {site.fact}"
