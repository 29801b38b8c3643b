"""What a run did, call by call, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class CallRecord:
    """One denoiser call. action: "computed", "reused" (a value held) or "forecast" (a value extrapolated)."""

    step: int
    branch: str | None
    timestep: float
    action: str
    reason: str


@dataclass
class RunStats:
    """timeline: every call in order. tabulated: outputs of timestep-only layers handed out instead of computed."""

    timeline: list[CallRecord] = field(default_factory=list)
    tabulated: int = 0

    def count(self, action: str) -> int:
        return sum(record.action == action for record in self.timeline)

    @property
    def computed(self) -> int:
        return self.count("computed")

    @property
    def reused(self) -> int:
        return self.count("reused")

    @property
    def forecast(self) -> int:
        return self.count("forecast")

    @property
    def reasons(self) -> dict[str, int]:
        """Why calls were computed, most frequent first."""
        return dict(Counter(record.reason for record in self.timeline if record.action == "computed").most_common())

    def to_dict(self) -> dict[str, Any]:
        counts = {"computed": self.computed, "reused": self.reused, "forecast": self.forecast, "tabulated": self.tabulated}
        return {**counts, "reasons": self.reasons, "timeline": [asdict(record) for record in self.timeline]}
