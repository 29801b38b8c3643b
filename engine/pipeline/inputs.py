"""Read the short forms a user writes: call arguments for calibration, one word for a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..steps import CacheConfig, FirstBlockGate, StaticSchedule

CACHE_FORMS = "None, a CacheConfig, 'interval:K', 'steps:0,3,7,...', 'gate:THRESHOLD', or a fraction of steps to compute such as 0.4"


def calibration_calls(calibration: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """One dict of call arguments, or several, as a list; raises TypeError for anything else."""
    if calibration is None:
        return []
    calls = [calibration] if isinstance(calibration, Mapping) else list(calibration)
    for call in calls:
        if not isinstance(call, Mapping):
            raise TypeError(f"calibration needs call arguments as a dict, or a list of them; {type(call).__name__} came")
    return [dict(call) for call in calls]


def fresh_generators(call: Mapping[str, Any]) -> dict[str, Any]:
    """The same call with its generators copied, so that calibration runs repeat and leave the user's generators alone."""

    def fresh(value: Any) -> Any:
        if isinstance(value, torch.Generator):
            copied = torch.Generator(value.device)
            copied.set_state(value.get_state())
            return copied
        return [fresh(item) for item in value] if isinstance(value, list) else value

    return {name: fresh(value) for name, value in call.items()}


def cache_config(cache: Any) -> CacheConfig | float | None:
    """A CacheConfig, or the fraction of steps to compute that a search is to turn into one.

    Raises ValueError for a string or number of another form.
    """
    if cache is None or isinstance(cache, CacheConfig):
        return cache
    if isinstance(cache, (int, float)) and not isinstance(cache, bool):
        if not 0 < cache < 1:
            raise ValueError(f"cache as a fraction of steps to compute needs to lie between 0 and 1; {cache} came")
        return float(cache)
    kind, _, value = cache.partition(":") if isinstance(cache, str) else ("", "", "")
    try:
        if kind == "interval":
            return CacheConfig(policy=StaticSchedule(interval=int(value)))
        if kind == "steps":
            return CacheConfig(policy=StaticSchedule(compute_steps=tuple(int(step) for step in value.split(","))))
        if kind == "gate":
            return CacheConfig(policy=FirstBlockGate(threshold=float(value)))
    except ValueError as error:
        raise ValueError(f"cache={cache!r}: {error}") from None
    raise ValueError(f"cache needs {CACHE_FORMS}; {cache!r} came")
