"""What a part is given: the device, the sizes, its time, and the record that keeps each case."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .faults import DeviceLost, Watchdog, is_lost
from .log import Log, shortened
from .machine import clocks
from .record import Record
from .sizes import DRY, FULL, Sizes


FAULTED = "faulted"


class OutOfTime(Exception):
    """The part's time is used up; what it has is kept, and another run goes on from there."""


class Context:
    """One part of one run.

    budget: seconds; a case is begun only while `needs` seconds are left. although_red: measure speeds all the same; the entry
    says so.
    """

    def __init__(
        self, part: str, record: Record, source: str, out: Path, dry: bool, budget: float, report: Callable[[str], None],
        although_red: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.record, self.source, self.out, self.dry, self.report = part, record, source, out, dry, report
        self.although_red, self.log = although_red, Log(record.path)
        self.sizes: Sizes = DRY if dry else FULL
        self.device = "cpu" if dry else "cuda"
        self.deadline = time.monotonic() + budget
        self.failures: list[str] = []
        self.entry: dict[str, Any] = {}

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @cached_property
    def watchdog(self) -> Watchdog | None:
        """None in a dry run, which shares its process."""
        return None if self.dry else Watchdog(self.log.path.open("a"))

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

    def case(
        self, name: str, measure: Callable[[], dict[str, Any]], needs: float = 20, limit: float = math.inf
    ) -> dict[str, Any] | None:
        """What the record has for the case, else what `measure` returns, kept at once; None where it failed in this run.

        limit: seconds after which the process is ended. Raises OutOfTime when fewer than `needs` seconds are left, DeviceLost
        where the case took the GPU with it.
        """
        if name in self.entry["cases"]:
            return self.entry["cases"][name]
        if name in self.entry["failed"]:
            return None
        if self.seconds_left < (0 if self.dry else needs):
            raise OutOfTime(f"{name} needs about {needs:.0f} s, {max(self.seconds_left, 0):.0f} s are left")
        self.report(name)
        start = time.perf_counter()
        try:
            with self._doing("case", name, limit):
                found = measure()
        except (OutOfTime, DeviceLost):
            raise
        except Exception as error:
            self.log.add(f"{self.name}: {name}", traceback.format_exc())
            traceback.print_exc()
            self.entry["failed"][name] = shortened(f"{type(error).__name__}: {error}")
            self.record.save()
            if is_lost(self.device):
                raise DeviceLost(name) from error
            return None
        self.entry["cases"][name] = found | {"seconds": round(time.perf_counter() - start, 2)}
        self.record.save()
        return self.entry["cases"][name]

    def reason_against(self, candidate: str) -> str | None:
        """One sentence where the candidate ended a process of this run, in whatever case."""
        return self.entry["faults"].get(candidate)

    @contextlib.contextmanager
    def candidate(self, name: str, limit: float = math.inf) -> Iterator[None]:
        """One of several calls that a case compares: where it takes the GPU or the process with it, the others go on in another.

        Raises DeviceLost in place of what it raised, where it took the GPU.
        """
        case = self.entry["doing"].get("case")
        try:
            with self._doing("candidate", name, limit):
                yield
        except OutOfTime:
            raise
        except Exception as error:
            self.log.add(f"{self.name}: {case}: {name}", traceback.format_exc())
            if is_lost(self.device):
                self.entry["faults"][name] = shortened(f"it faulted in {case}: {error}")
                self.record.save()
                raise DeviceLost(name) from error
            raise

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Ends the process where the block takes longer."""
        return self.watchdog.watch(seconds) if self.watchdog else contextlib.nullcontext()

    @contextlib.contextmanager
    def _doing(self, what: str, name: str, limit: float) -> Iterator[None]:
        """The record says what is done, for the process that finds this one gone."""
        self.entry["doing"][what] = name
        self.record.save()
        try:
            with self.within(limit):
                yield
        finally:
            del self.entry["doing"][what]

    def run(self, part: Callable[[Context], None], reports_speed: bool) -> dict[str, Any]:
        """Run the part and return its entry of the record; what ended it is the entry's status and reason."""
        entry = self.record.part(self.name)
        if entry.get("source") != self.source:
            self.record.forget(self.name)
            entry = self.record.part(self.name)
        entry |= {"status": "running", "source": self.source, "absent": [], "doing": {}, "clocks before": clocks()}
        for kept in ("failed", "faults"):
            entry.setdefault(kept, {})
        entry.pop("reason", None)
        self.entry, start = entry, time.perf_counter()
        refusal = self.record.reason_against_speed(self.source) if reports_speed else None
        try:
            if refusal and not self.although_red:
                entry |= {"status": "refused", "reason": refusal}
            else:
                if refusal:
                    entry["measured although"] = refusal
                self.record.save()
                part(self)
                entry["status"] = "failed" if self.failures or entry["failed"] or entry["faults"] else "done"
            if reports_speed:
                entry["launch configurations"] = launch_configurations()
        except OutOfTime as stop:
            entry |= {"status": "partial", "reason": str(stop)}
        except DeviceLost as lost:
            entry |= {"status": FAULTED, "reason": f"{lost} took the GPU with it"}
        except Exception as error:
            self.log.add(self.name, traceback.format_exc())
            traceback.print_exc()
            entry |= {"status": "failed", "reason": shortened(f"{type(error).__name__}: {error}")}
        if entry["status"] == "failed":
            entry["reason"] = "; ".join(filter(None, [entry.get("reason"), *self.failures, *told(entry)]))
        entry.pop("doing")
        entry["clocks after"] = clocks()
        entry["seconds"] = round(entry.get("seconds", 0) + time.perf_counter() - start, 1)
        self.record.save()
        return entry


def told(entry: dict[str, Any]) -> list[str]:
    """One line for each case that failed and each candidate that faulted."""
    found = {**entry.get("failed", {}), **entry.get("faults", {})}
    return [f"{name}: {(text.splitlines() or [''])[0][:300]}" for name, text in found.items()]


def launch_configurations() -> str | dict[str, str]:
    """What `halfbyte tune` kept for this machine, by digest, or that it kept nothing."""
    from halfbyte.env import setting

    folder = setting("HALFBYTE_CACHE_DIR") / "triton"
    kept = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(folder.glob("*.json"))}
    return kept or "as shipped"


def missing_packages(names: Sequence[str]) -> list[str]:
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
