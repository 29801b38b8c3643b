"""Making users' fused adapters part of what is stored, so that a model with a fused LoRA can be saved."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import nn

from ..formats import companion_dtype
from ..layers import LowBitWeight, share_down
from .layer_map import LayerMap
from .save import attach_quantizer


def merge_adapters(model: nn.Module) -> list[str]:
    """Append every fused adapter to the stored low-rank branch of its layer, whose rank grows; returns the layers changed.

    The factors are rounded from float32 to the 16 bits of the branch. Layers that share a proj_down go on sharing it, each with zeros in
    proj_up where the adapters of the others are. Unfusing afterwards adds the inverse as a new adapter. Raises ValueError, with
    nothing changed, for an adapter that is not of low rank or a rank that the layer's sizes do not allow.
    """
    weights = {name: p for name, p in model.named_parameters() if isinstance(p, LowBitWeight)}
    down_owner = LayerMap.of(weights).down_owner
    groups: dict[str, list[str]] = defaultdict(list)
    for key in weights:
        name = key.removesuffix(".weight")
        groups[down_owner.get(name, name)].append(key)
    merged = {}
    for keys in groups.values():
        if any(weights[key].side for key in keys):
            merged |= _merge_group({key: weights[key] for key in keys})
    for key, weight in merged.items():
        weights[key].assign(weight)
    if merged and getattr(model, "hf_quantizer", None) is not None:
        attach_quantizer(model)
    return [key.removesuffix(".weight") for key in merged]


def _merge_group(weights: dict[str, LowBitWeight]) -> dict[str, LowBitWeight]:
    for key, weight in weights.items():
        if any(term.down is None for term in weight.side):
            raise ValueError(f"{key}: an adapter of low rank is needed to store it, the one fused here is dense")
    some = next(iter(weights.values()))
    stored = [some.storage["proj_down"]] if some.layer_format.rank else []
    # Zero rows of proj_up keep a layer away from the columns of proj_down that belong to the others.
    terms = [(key, term) for key, weight in weights.items() for term in weight.side]
    sixteen_bit = (tensor.dtype for tensor in some.storage.values() if tensor.is_floating_point() and tensor.dtype.itemsize == 2)
    dtype = next(sixteen_bit, companion_dtype(some.dtype))
    proj_down = torch.cat([*stored, *(term.down.t().to(dtype) for _, term in terms)], dim=1).contiguous()
    merged = {}
    for key, weight in weights.items():
        ups = [weight.storage["proj_up"]] if weight.layer_format.rank else []
        n = weight.shape[0]
        ups += [(term.up if key == owner else term.up.new_zeros(n, term.up.shape[1])).to(dtype) for owner, term in terms]
        layer_format = replace(weight.layer_format, rank=proj_down.shape[1])
        if reason := layer_format.reason_against(*weight.shape[:2], tuple(weight.shape[2:]) or (1, 1)):
            raise ValueError(f"{key}: {reason}, its adapters cannot be merged")
        storage = weight.storage | {"proj_down": proj_down, "proj_up": torch.cat(ups, dim=1).contiguous()}
        merged[key] = LowBitWeight(storage, layer_format, tuple(weight.shape), weight.dtype)
        merged[key].numerics, merged[key].memory = weight.numerics, weight.memory
    if len(merged) > 1:
        share_down(list(merged.values()))
    return merged
