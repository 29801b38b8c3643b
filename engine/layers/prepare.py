"""Choosing and building, for every low-bit layer of a model, the form that this device runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .expanded_each_call import ExpandedEachCall
from .install import low_bit_layers
from .prepared import Prepared, reason_against, reason_against_memory
from .streamed_form import StreamedForm


@dataclass(frozen=True)
class PreparedLayer:
    """kind: what runs, such as "expanded float32" or "int8 w8a8"; reason: why, in a sentence.

    prepared_bytes: kept beside the stored ones. workspace_bytes: the most that a call unpacks into, freed when it ends.
    """

    name: str
    kind: str
    reason: str
    stored_bytes: int
    prepared_bytes: int
    workspace_bytes: int


@dataclass(frozen=True)
class PreparedReport:
    """What `prepare` built; iterates over its layers."""

    numerics: str
    memory: str
    layers: tuple[PreparedLayer, ...]

    def __iter__(self) -> Iterator[PreparedLayer]:
        return iter(self.layers)

    @property
    def prepared_bytes(self) -> int:
        return sum(layer.prepared_bytes for layer in self.layers)

    @property
    def workspace_bytes(self) -> int:
        """Of the layer that unpacks the most: layers run one after the other and take the same memory."""
        return max((layer.workspace_bytes for layer in self.layers), default=0)

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> how many layers run it."""
        kinds = [layer.kind for layer in self.layers]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def prepare(model: nn.Module, numerics: str = "native", memory: str = "fast") -> PreparedReport:
    """Build what every low-bit layer runs: derived, so neither saved nor counted as stored, and rebuilt when a weight changes.

    numerics: "native" (what is fastest here, which on a CPU is float or INT8 and so not what the format says), or what a GPU
    computes: "w4a4", "w4a8" (4-bit storage folded to INT8 per channel), "nvfp4". memory: "fast" keeps beside the storage what runs
    fastest, "4bit" nothing larger than the storage: codes are unpacked at each call. Raises ValueError naming the first layer
    whose storage cannot compute so, before any layer is changed.
    """
    if reason := reason_against_memory(memory, numerics):
        raise ValueError(reason)
    layers = low_bit_layers(model)
    for name, module in layers.items():
        if reason := reason_against(module.weight.layer_format, numerics):
            raise ValueError(f"{name}: {reason}")
    built = []
    for name, module in layers.items():
        weight = module.weight
        weight.numerics, weight.memory = numerics, memory
        form = weight.prepared()
        built.append(PreparedLayer(name, form.kind, form.reason, weight.stored_bytes, form.nbytes, workspace(form)))
    return PreparedReport(numerics, memory, tuple(built))


def workspace(form: Prepared) -> int:
    return form.workspace_bytes if isinstance(form, StreamedForm | ExpandedEachCall) else 0
