"""Per step, what is computed, reused or forecast: policies, predictors, and the engine that carries them out."""

from .compiled import compile_blocks
from .config import CacheConfig
from .context import StepContext
from .engine import StepEngine
from .policy import POLICIES, Action, FirstBlockGate, StaticSchedule
from .predictor import PREDICTORS, DampedLinear, Hold, Linear, Quadratic
from .run import Interrupted, Run
from .site import Cut, Site, sites_for
from .stats import CallRecord, RunStats

__all__ = [
    "POLICIES",
    "PREDICTORS",
    "Action",
    "CacheConfig",
    "CallRecord",
    "Cut",
    "DampedLinear",
    "FirstBlockGate",
    "Hold",
    "Interrupted",
    "Linear",
    "Quadratic",
    "Run",
    "RunStats",
    "Site",
    "StaticSchedule",
    "StepContext",
    "StepEngine",
    "compile_blocks",
    "sites_for",
]
