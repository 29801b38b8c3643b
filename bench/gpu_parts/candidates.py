"""Calls that a case compares: captured one by one, so that one that does not run costs the others nothing."""

from __future__ import annotations

import statistics
from typing import Any

from .context import Context, OutOfTime
from .faults import DeviceLost
from .log import shortened
from .timing import Call, Samples, fastest, microseconds, ratios

# Compiling included. No call of a kernel takes a second; one that takes this long waits for what never comes.
CALL_SECONDS, TUNING_SECONDS, SAMPLES_SECONDS = 75, 240, 60


class Candidates:
    """Calls as graphs by name; what does not run or cannot be captured is kept with its reason."""

    def __init__(self, context: Context) -> None:
        self.context, self.calls, self.refused = context, {}, {}

    def add(self, name: str, call: Call, limit: float = CALL_SECONDS) -> None:
        if reason := self.context.reason_against(name):
            self.refused[name] = reason
            return
        try:
            with self.context.candidate(name, limit):
                self.calls[name] = self.context.stopwatch.prepare(call)
        except (DeviceLost, OutOfTime):
            raise
        except Exception as error:
            self.refused[name] = shortened(f"{type(error).__name__}: {error}")

    def samples(self, flush: bool = True) -> Samples:
        with self.context.within(SAMPLES_SECONDS):
            return self.context.stopwatch.interleave(self.calls, self.context.sizes.rounds, flush=flush)

    def measure(self, baselines: tuple[str, ...], flop: int) -> dict[str, Any]:
        samples = self.samples()
        baseline = fastest(samples, baselines)
        medians = {name: statistics.median(taken) for name, taken in samples.items()}
        return microseconds(samples) | {
            "baseline": baseline,
            "speed-up": ratios(samples, baseline, [name for name in samples if name not in baselines]),
            "TFLOP/s": {name: flop / seconds / 1e12 for name, seconds in medians.items()},
            "refused": self.refused,
        }
