"""Which layers of a model are stored in low-bit form, how, and which of them read another layer's proj_down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..formats import LayerFormat
from ..layers import LowBitWeight
from .header import CheckpointError
from .patterns import compress, expand, fill, is_wild, template


def layer_names(model: nn.Module) -> list[str]:
    """Names of all layers that could be low-bit, in model order."""
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


@dataclass(frozen=True)
class LayerMap:
    """formats: layer name -> LayerFormat. down_owner: layer -> the layer that stores the proj_down it reads."""

    formats: Mapping[str, LayerFormat]
    down_owner: Mapping[str, str]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> LayerMap:
        """From a state dict or dict(model.named_parameters()); the first layer of a sharing group is the owner."""
        formats: dict[str, LayerFormat] = {}
        owner_of: dict[tuple[int, int], str] = {}
        down_owner: dict[str, str] = {}
        for key, weight in tensors.items():
            if not isinstance(weight, LowBitWeight):
                continue
            name = key.removesuffix(".weight")
            formats[name] = weight.layer_format
            if weight.layer_format.rank:
                down = weight.storage["proj_down"]
                # Two tensors are one when they view the same memory; this also holds on the meta device.
                owner = owner_of.setdefault((down.untyped_storage()._cdata, down.storage_offset()), name)
                if owner != name:
                    down_owner[name] = owner
        return cls(formats, down_owner)

    def to_dict(self, names: Iterable[str]) -> dict[str, Any]:
        """JSON form, as short as patterns over `names` (all layers of the model) can make it."""
        names = list(names)
        by_format: dict[LayerFormat, list[str]] = defaultdict(list)
        for name, layer_format in self.formats.items():
            by_format[layer_format].append(name)
        labels: dict[LayerFormat, str] = {}
        for layer_format in by_format:
            label = f"{layer_format.weight}_r{layer_format.rank}"
            labels[layer_format] = f"{label}_{len(labels)}" if label in labels.values() else label
        return {
            "formats": {labels[layer_format]: layer_format.to_dict() for layer_format in by_format},
            "layers": {labels[layer_format]: compress(members, names) for layer_format, members in by_format.items()},
            "shared_down": self._shared_patterns(names),
        }

    def _shared_patterns(self, names: list[str]) -> dict[str, list[str]]:
        members: dict[str, list[str]] = defaultdict(list)
        for member, owner in self.down_owner.items():
            members[owner].append(member)
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
        shared: dict[str, list[str]] = {}
        for owner, group in members.items():
            form, indices = template(owner)
            if all(template(member)[1] == indices for member in group):
                alike[form, tuple(template(member)[0] for member in group)].append(owner)
            else:
                shared[owner] = group
        for (form, forms), owners in alike.items():
            for pattern in compress(owners, names):
                slots = [part for part, star in zip(pattern.split("."), form.split("."), strict=True) if star == "*"]
                values = ["*" if is_wild(slot) else slot for slot in slots]
                shared[pattern] = [fill(member, values) for member in forms]
        return shared

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], names: Iterable[str]) -> LayerMap:
        """The inverse of `to_dict`; raises CheckpointError naming the field, pattern or layer that does not fit the model."""
        names = list(names)
        table = {label: _read_format(label, entry) for label, entry in values["formats"].items()}
        chosen: dict[str, LayerFormat] = {}
        for label, patterns in values["layers"].items():
            if label not in table:
                raise CheckpointError(f"layers.{label}: one of the formats {', '.join(sorted(table))} is needed")
            for pattern in patterns:
                for name in _expand(f"layers.{label}", pattern, names):
                    if name in chosen:
                        raise CheckpointError(f"layers.{label}: layer {name} needs one format, {pattern!r} gives it a second")
                    chosen[name] = table[label]
        down_owner: dict[str, str] = {}
        for pattern, members in values["shared_down"].items():
            for owner, indices in _expand("shared_down", pattern, names).items():
                for member in members:
                    _share(chosen, down_owner, owner, _fill(member, indices))
        return cls({name: chosen[name] for name in names if name in chosen}, down_owner)


def _read_format(label: str, entry: Any) -> LayerFormat:
    try:
        return LayerFormat.from_dict(entry)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"formats.{label}: {error}") from None


def _expand(field: str, pattern: str, names: list[str]) -> dict[str, tuple[str, ...]]:
    try:
        matches = expand(pattern, names)
    except ValueError as error:
        raise CheckpointError(f"{field}: {error}") from None
    if not matches:
        raise CheckpointError(f"{field}: {pattern!r} must match a Linear or Conv2d of this model, it matches none")
    return matches


def _fill(pattern: str, indices: tuple[str, ...]) -> str:
    try:
        return fill(pattern, indices)
    except ValueError as error:
        raise CheckpointError(f"shared_down: {error}") from None


def _share(chosen: Mapping[str, LayerFormat], down_owner: dict[str, str], owner: str, member: str) -> None:
    for name in (owner, member):
        if name not in chosen or not chosen[name].rank:
            raise CheckpointError(f"shared_down: layer {name} must have a low-rank branch to share one")
    if chosen[owner].rank != chosen[member].rank:
        raise CheckpointError(
            f"shared_down: {member} and {owner} need one rank, got {chosen[member].rank} and {chosen[owner].rank}"
        )
    if member in down_owner or owner in down_owner or member == owner or member in down_owner.values():
        raise CheckpointError(
            f"shared_down: {member} must belong to one owner that stores its own proj_down, got {owner} as well"
        )
    down_owner[member] = owner
