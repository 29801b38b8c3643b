"""The Plan: for every layer which bits it is stored in, for every step what is computed; frozen, printable, JSON both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..formats import LayerFormat
from ..steps import CacheConfig
from .identity import ModelIdentity
from .table import render, render_difference

VERSION = 1
FILE_NAME = "halfbyte_plan.json"


@dataclass(frozen=True)
class Plan:
    """models: identity per denoiser attribute; storage: per denoiser, layer name -> LayerFormat (absent = float).

    cache: what each step does, None = every step computes. num_inference_steps: the number the cache was chosen for; another
    number of steps re-instantiates its policy. stored_bytes: per denoiser, what the quantized layers take. figures: predicted
    and measured numbers, each under a name that says which. provenance: recipe, versions, calibration.
    """

    models: Mapping[str, ModelIdentity]
    storage: Mapping[str, Mapping[str, LayerFormat]]
    stored_bytes: Mapping[str, int]
    cache: CacheConfig | None = None
    num_inference_steps: int | None = None
    numerics: str = "native"
    figures: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("models", "storage", "stored_bytes", "figures", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        if set(self.storage) - set(self.models):
            raise ValueError(f"storage names {sorted(set(self.storage) - set(self.models))}, models has {sorted(self.models)}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "models": {name: vars(identity) for name, identity in self.models.items()},
            "storage": {name: _group_by_format(layers) for name, layers in self.storage.items()},
            "stored_bytes": dict(self.stored_bytes),
            "cache": self.cache.to_dict() if self.cache else None,
            "num_inference_steps": self.num_inference_steps,
            "numerics": self.numerics,
            "figures": dict(self.figures),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Raises ValueError, one sentence naming the field, what it needed and what came."""
        fields = _object(data, "plan", {"version", "models", "storage", "stored_bytes", "cache", "num_inference_steps", "numerics", "figures", "provenance"})
        if fields["version"] != VERSION:
            raise ValueError(f"plan.version needs {VERSION}; {fields['version']!r} came")
        steps = fields["num_inference_steps"]
        if steps is not None and (type(steps) is not int or steps < 1):
            raise ValueError(f"plan.num_inference_steps needs a positive integer or null; {steps!r} came")
        if not isinstance(fields["numerics"], str):
            raise ValueError(f"plan.numerics needs a string; {fields['numerics']!r} came")
        models = {
            name: ModelIdentity(**_strings(value, f"plan.models.{name}", {"class_name", "config", "shapes"}))
            for name, value in _object(fields["models"], "plan.models").items()
        }
        storage = {name: _ungroup(value, f"plan.storage.{name}") for name, value in _object(fields["storage"], "plan.storage").items()}
        stored = _object(fields["stored_bytes"], "plan.stored_bytes")
        for name, value in stored.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"plan.stored_bytes.{name} needs a non-negative integer; {value!r} came")
        figures = _object(fields["figures"], "plan.figures")
        for name, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"plan.figures.{name} needs a number; {value!r} came")
        cache = _named("plan.cache", CacheConfig.from_dict, fields["cache"]) if fields["cache"] is not None else None
        return cls(models, storage, stored, cache, steps, fields["numerics"], figures, _object(fields["provenance"], "plan.provenance"))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the plan as JSON (a folder gets `halfbyte_plan.json`): whole or not at all."""
        path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> Plan:
        path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(f"{path} needs to be a plan file or a folder with {FILE_NAME}; there is none") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} needs to be a JSON plan; it is not JSON ({error})") from None
        return cls.from_dict(data)

    def __str__(self) -> str:
        return render(self)

    def diff(self, other: Plan) -> str:
        """The layers whose format differs and the lines that do, `-` ours, `+` theirs."""
        return render_difference(self, other)


def _group_by_format(layers: Mapping[str, LayerFormat]) -> list[dict[str, Any]]:
    groups: dict[LayerFormat, list[str]] = {}
    for name, layer_format in layers.items():
        groups.setdefault(layer_format, []).append(name)
    return [{"format": layer_format.to_dict(), "layers": names} for layer_format, names in groups.items()]


def _ungroup(groups: Any, where: str) -> dict[str, LayerFormat]:
    if not isinstance(groups, list):
        raise ValueError(f"{where} needs a list of format groups; {type(groups).__name__} came")
    layers: dict[str, LayerFormat] = {}
    for index, group in enumerate(groups):
        entry = _object(group, f"{where}[{index}]", {"format", "layers"})
        if not isinstance(entry["layers"], list) or not all(isinstance(name, str) for name in entry["layers"]):
            raise ValueError(f"{where}[{index}].layers needs a list of layer names; {entry['layers']!r} came")
        layer_format = _named(f"{where}[{index}].format", LayerFormat.from_dict, entry["format"])
        if twice := [name for name in entry["layers"] if name in layers]:
            raise ValueError(f"{where}[{index}].layers needs each layer once; {twice[0]} came twice")
        layers.update(dict.fromkeys(entry["layers"], layer_format))
    return layers


def _object(value: Any, where: str, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} needs a JSON object; {type(value).__name__} came")
    if keys is not None and set(value) != keys:
        missing, unknown = sorted(keys - set(value)), sorted(set(value) - keys)
        raise ValueError(f"{where} needs exactly the fields {sorted(keys)}; missing {missing}, unknown {unknown}")
    return value


def _strings(value: Any, where: str, keys: set[str]) -> dict[str, str]:
    for name, text in _object(value, where, keys).items():
        if not isinstance(text, str):
            raise ValueError(f"{where}.{name} needs a string; {text!r} came")
    return value


def _named(where: str, build: Any, value: Any) -> Any:
    try:
        return build(value)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: {error}") from None
