"""What a cache does, as one frozen document: when, what value, where, and whether timestep-only layers are tabulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .policy import POLICIES, Policy
from .predictor import PREDICTORS, Hold, Predictor
from .registry import from_named, is_integer, to_named
from .site import KINDS

_FIELDS = {"policy", "predictor", "site", "depth", "tabulate"}


@dataclass(frozen=True)
class CacheConfig:
    """policy: when to compute. predictor: what a skipped step takes. site: "auto" or one of site.KINDS.

    depth: for deep_main, how many outer levels of the UNet a skipped step still computes; 0 leaves its last residual block.
    tabulate: keep the outputs of layers that see nothing but the timestep (and label), and hand them out again, bit for bit.
    """

    policy: Policy
    predictor: Predictor = field(default_factory=Hold)
    site: str = "auto"
    depth: int = 1
    tabulate: bool = True

    def __post_init__(self) -> None:
        if type(self.policy) not in POLICIES.values():
            raise ValueError(f"policy needs one of {sorted(cls.__name__ for cls in POLICIES.values())}; {self.policy!r} came")
        if type(self.predictor) not in PREDICTORS.values():
            raise ValueError(
                f"predictor needs one of {sorted(cls.__name__ for cls in PREDICTORS.values())}; {self.predictor!r} came"
            )
        if self.site not in ("auto", *KINDS):
            raise ValueError(f"site needs one of {('auto', *KINDS)}; {self.site!r} came")
        if not is_integer(self.depth) or self.depth < 0:
            raise ValueError(f"depth needs an integer from 0; {self.depth!r} came")
        if not isinstance(self.tabulate, bool):
            raise ValueError(f"tabulate needs true or false; {self.tabulate!r} came")
        if self.policy.probes and self.site == "output":
            raise ValueError(
                f"site 'output' skips the first block too, so {type(self.policy).__name__} cannot ask it; use site 'stack'"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "policy": to_named(POLICIES, self.policy),
            "predictor": to_named(PREDICTORS, self.predictor),
            "site": self.site,
            "depth": self.depth,
            "tabulate": self.tabulate,
        }

    @classmethod
    def from_dict(cls, data: Any) -> CacheConfig:
        """Raises ValueError, one sentence, for a missing or unknown field or a value out of range."""
        if not isinstance(data, Mapping):
            raise ValueError(f"cache needs an object; {type(data).__name__} came")
        if unknown := sorted(set(data) - _FIELDS):
            raise ValueError(f"cache needs fields out of {sorted(_FIELDS)}; {unknown[0]!r} came")
        if "policy" not in data:
            raise ValueError("cache needs a policy; none came")
        values = dict(data, policy=from_named(POLICIES, data["policy"], "policy"))
        if "predictor" in data:
            values["predictor"] = from_named(PREDICTORS, data["predictor"], "predictor")
        return cls(**values)
