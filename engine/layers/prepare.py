"""Choosing and building, for every low-bit layer of a model, the form that this device runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .install import low_bit_layers
from .prepared import reason_against


@dataclass(frozen=True)
class PreparedLayer:
    """kind: what runs, such as "expanded float32" or "int8 w8a8"; reason: why, in a sentence."""

    name: str
    kind: str
    reason: str
    stored_bytes: int
    prepared_bytes: int


@dataclass(frozen=True)
class PreparedReport:
    """What `prepare` built; iterates over its layers."""

    numerics: str
    layers: tuple[PreparedLayer, ...]

    def __iter__(self) -> Iterator[PreparedLayer]:
        return iter(self.layers)

    @property
    def prepared_bytes(self) -> int:
        return sum(layer.prepared_bytes for layer in self.layers)

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> how many layers run it."""
        kinds = [layer.kind for layer in self.layers]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def prepare(model: nn.Module, numerics: str = "native") -> PreparedReport:
    """Build what every low-bit layer runs: derived, so neither saved nor counted as stored, and rebuilt when a weight changes.

    numerics: "native" (what is fastest here, which on a CPU is float or INT8 and so not what the format says), or what a GPU
    computes: "w4a4", "w4a8" (4-bit storage folded to INT8 per channel), "nvfp4". Raises ValueError naming the first layer whose
    storage cannot compute so, before any layer is changed.
    """
    layers = low_bit_layers(model)
    for name, module in layers.items():
        if reason := reason_against(module.weight.layer_format, numerics):
            raise ValueError(f"{name}: {reason}")
    built = []
    for name, module in layers.items():
        weight = module.weight
        weight.numerics = numerics
        form = weight.prepared()
        built.append(PreparedLayer(name, form.kind, form.reason, weight.stored_bytes, form.nbytes))
    return PreparedReport(numerics, tuple(built))
