"""The plan: storage per layer and action per step in one document, and the search for the steps to compute."""

from .build import build_plan, storage_of
from .document import FILE_NAME, Plan
from .fit import planned_decisions, planned_recipe, require_fit
from .identity import ModelIdentity
from .schedule import Schedule, choose_compute_steps
from .search import search_cache
from .trajectory import Trajectory, record_trajectory

__all__ = [
    "FILE_NAME",
    "ModelIdentity",
    "Plan",
    "Schedule",
    "Trajectory",
    "build_plan",
    "choose_compute_steps",
    "planned_decisions",
    "planned_recipe",
    "record_trajectory",
    "require_fit",
    "search_cache",
    "storage_of",
]
