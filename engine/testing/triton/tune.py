"""Which configuration runs an example call of an op fastest here, and gives the default's result within the formats' limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...ops import OPS, use_backend
from ...ops.triton.register import TABLES
from ..calls import outputs_as_floats
from ..limits import LIMITS, relative_rms


@dataclass(frozen=True)
class Tuned:
    """request, tried: as triton_kernels has them; the first of tried is the default."""

    request: Any
    tried: tuple
    best: Any

    @property
    def speedup(self) -> float:
        """Of the best over the default; infinite where the default does not run."""
        default = self.tried[0].milliseconds
        return default / self.best.milliseconds if default else float("inf")


def tunable_ops() -> list[str]:
    return [op for table in TABLES.values() for op in table if OPS[op].missing("triton") is None]


def reason_against_result(op: str, args: tuple, want: Any, got: Any) -> str | None:
    wanted = outputs_as_floats(op, args, want)
    for name, (tensor, format) in outputs_as_floats(op, args, got).items():
        if (error := relative_rms(tensor, wanted[name][0])) > (limit := LIMITS[format].agreement):
            return f"{name}: relative RMS error {error:.3g} is over the {format} limit {limit:.3g}"
    return None


def tune_call(op: str, args: tuple, known: set[str], measure: Callable[[Callable[[], Any]], float] | None = None) -> Iterator[Tuned]:
    """Search for every look-up of this call whose key is not known yet; adds the keys. measure: milliseconds of a call.

    Raises NoBackendError where Triton does not take the call.
    """
    from ...triton_kernels.search import fastest, milliseconds_of, requests_of, trials
    from ...triton_kernels.tuning import trying

    def call() -> Any:
        with use_backend("triton"):
            return OPS[op](*args)

    for request in requests_of(call)[1]:
        if request.key in known:
            continue
        known.add(request.key)
        with trying(request.op, request.default):
            want = call()
        tried = tuple(trials(call, request, lambda got: reason_against_result(op, args, want, got), measure or milliseconds_of))
        if best := fastest(tried):
            yield Tuned(request, tried, best)
