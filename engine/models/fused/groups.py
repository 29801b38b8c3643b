"""Products that read the same rows, quantized once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .handover import Handover
from .operands import Codes, Input, Product


@dataclass(frozen=True)
class Group:
    """Products of one input; each with the layers whose outputs it gives side by side, as (name, N)."""

    input: Input
    products: tuple[tuple[tuple[tuple[str, int], ...], Product], ...]


def outputs(
    groups: tuple[Group, ...], quantize: Callable[[Input], Codes], dtype: torch.dtype, handovers: Mapping[str, Handover] = {}
) -> dict[str, Tensor | Codes]:
    """Layer -> its output [M, N], or the codes that its handover makes of it."""
    found: dict[str, Tensor | Codes] = {}
    for group in groups:
        codes = quantize(group.input)
        for layers, product in group.products:
            names = [name for name, _ in layers]
            if names[0] in handovers:
                found[names[0]] = handovers[names[0]].codes(codes)
            else:
                found.update(zip(names, product.multiply(codes, dtype).split([n for _, n in layers], -1), strict=True))
    return found


def product_of_layer(groups: tuple[Group, ...], name: str) -> tuple[Input, Product]:
    """Of a layer whose product gives nothing beside its output."""
    return next((group.input, product) for group in groups for layers, product in group.products if layers[0][0] == name)
