"""Policies and predictors by name, for JSON: a frozen dataclass to a dict with its kind, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def to_named(kinds: Mapping[str, type], value: Any) -> dict[str, Any]:
    """{"kind": name, ...fields}; tuples become lists."""
    kind = next(name for name, cls in kinds.items() if type(value) is cls)
    data = {field.name: getattr(value, field.name) for field in fields(value)}
    return {"kind": kind, **{name: list(item) if isinstance(item, tuple) else item for name, item in data.items()}}


def from_named(kinds: Mapping[str, type], data: Any, where: str) -> Any:
    """The dataclass named by data["kind"]; raises ValueError for an unknown kind or field."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} needs an object with a kind; {type(data).__name__} came")
    if data.get("kind") not in kinds:
        raise ValueError(f"{where}.kind needs one of {sorted(kinds)}; {data.get('kind')!r} came")
    cls = kinds[data["kind"]]
    known = {field.name for field in fields(cls)}
    if unknown := sorted(set(data) - known - {"kind"}):
        raise ValueError(f"{where} needs fields out of {sorted(known)}; {unknown[0]!r} came")
    values = {name: tuple(item) if isinstance(item, list) else item for name, item in data.items() if name != "kind"}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
