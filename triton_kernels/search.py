"""The search for the fastest configuration of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import triton

from .tuning import Request, listening, trying


@dataclass(frozen=True)
class Trial:
    """milliseconds: the median; None where the configuration did not run or gave another result, and `reason` says so."""

    config: Any
    milliseconds: float | None
    reason: str | None = None


def milliseconds_of(call: Callable[[], Any]) -> float:
    """Median over CUDA events, with a cold L2."""
    return triton.testing.do_bench(call, return_mode="median")


def requests_of(call: Callable[[], Any]) -> tuple[Any, list[Request]]:
    """What the call gives with what it looks up now, and those look-ups, each once."""
    with listening() as heard:
        result = call()
    return result, list({request.key: request for request in heard}.values())


def trials(
    call: Callable[[], Any],
    request: Request,
    reason_against: Callable[[Any], str | None],
    measure: Callable[[Callable[[], Any]], float] = milliseconds_of,
) -> Iterator[Trial]:
    """Run the call with the default and then every other configuration in the request's space.

    reason_against(result): None, or one sentence why it is not the default's result; then it is not measured.
    """
    for config in request.space:
        with trying(request.op, config):
            try:
                reason = reason_against(call())
                yield Trial(config, None if reason else measure(call), reason)
            except Exception as error:  # too many registers or bytes of shared memory, and whatever a compiler may raise
                yield Trial(config, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}")


def fastest(tried: Iterable[Trial]) -> Trial | None:
    """None where nothing ran."""
    return min((trial for trial in tried if trial.milliseconds is not None), key=lambda trial: trial.milliseconds, default=None)
