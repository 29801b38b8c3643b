"""What a part is given: the device, the sizes, its time, and the record that keeps each case."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .machine import clocks
from .record import Record
from .sizes import DRY, FULL, Sizes


class OutOfTime(Exception):
    """The part's time is used up; what it has is kept, and another run goes on from there."""


class Context:
    """One part of one run.

    budget: seconds; a case is begun only while `needs` seconds are left.
    """

    def __init__(
        self, part: str, record: Record, source: str, out: Path, dry: bool, budget: float, report: Callable[[str], None]
    ) -> None:
        self.name, self.record, self.source, self.out, self.dry, self.report = part, record, source, out, dry, report
        self.sizes: Sizes = DRY if dry else FULL
        self.device = "cpu" if dry else "cuda"
        self.deadline = time.monotonic() + budget
        self.failures: list[str] = []
        self.entry: dict[str, Any] = {}

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @cached_property
    def stopwatch(self) -> Any:
        from .timing import Stopwatch

        return Stopwatch(self.device)

    def compile(self, function: Any, mode: str | None = None) -> Any:
        """torch.compile; a dry run compiles nothing, as that costs it seconds per call."""
        import torch

        if self.dry:
            return function
        # Every shape is compiled for itself, and more than the usual limit of them.
        torch._dynamo.config.recompile_limit = 64
        return torch.compile(function, fullgraph=True, dynamic=False, mode=mode)

    def compile_blocks(self, model: Any) -> None:
        """As pipelines do it; nothing in a dry run."""
        from halfbyte.steps import compile_blocks

        if not self.dry:
            compile_blocks(model)

    def absent(self, sentence: str) -> None:
        """One sentence about a piece that is not there, for the record."""
        if sentence not in self.entry["absent"]:
            self.entry["absent"].append(sentence)
            self.report(sentence)

    def case(self, name: str, measure: Callable[[], dict[str, Any]], needs: float = 20) -> dict[str, Any] | None:
        """What the record has for the case, else what `measure` returns, kept at once; None where it failed.

        Raises OutOfTime when fewer than `needs` seconds are left.
        """
        if name in self.entry["cases"]:
            return self.entry["cases"][name]
        if self.seconds_left < (0 if self.dry else needs):
            raise OutOfTime(f"{name} needs about {needs:.0f} s, {max(self.seconds_left, 0):.0f} s are left")
        self.report(name)
        start = time.perf_counter()
        try:
            found = measure()
        except OutOfTime:
            raise
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500])
            return None
        self.entry["cases"][name] = found | {"seconds": round(time.perf_counter() - start, 2)}
        self.record.save()
        return self.entry["cases"][name]

    def run(self, part: Callable[[Context], None], reports_speed: bool) -> dict[str, Any]:
        """Run the part and return its entry of the record; what ended it is the entry's status and reason."""
        entry = self.record.part(self.name)
        if entry.get("source") != self.source:
            self.record.forget(self.name)
            entry = self.record.part(self.name)
        entry |= {"status": "running", "source": self.source, "absent": [], "clocks before": clocks()}
        entry.pop("reason", None)
        self.entry, start = entry, time.perf_counter()
        refusal = self.record.reason_against_speed(self.source) if reports_speed else None
        try:
            if refusal:
                entry |= {"status": "refused", "reason": refusal}
            else:
                self.record.save()
                part(self)
                entry["status"] = "failed" if self.failures else "done"
        except OutOfTime as stop:
            entry |= {"status": "partial", "reason": str(stop)}
        except Exception as error:
            traceback.print_exc()
            entry |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        if self.failures:
            entry["reason"] = "; ".join(self.failures)
        entry["clocks after"] = clocks()
        if reports_speed:
            entry["launch configurations"] = launch_configurations()
        entry["seconds"] = round(entry.get("seconds", 0) + time.perf_counter() - start, 1)
        self.record.save()
        return entry


def launch_configurations() -> str | dict[str, str]:
    """What `halfbyte tune` kept for this machine, by digest, or that it kept nothing."""
    from halfbyte.env import setting

    folder = setting("HALFBYTE_CACHE_DIR") / "triton"
    kept = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(folder.glob("*.json"))}
    return kept or "as shipped"


def missing_packages(names: Sequence[str]) -> list[str]:
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
