"""What tests and benchmarks share: error limits, layer shapes, example calls, poisoned memory."""

from .calls import BUILDERS, calls_of, outputs_as_floats
from .inputs import Inputs
from .limits import FOLD_LIMITS, LIMITS, Limit, assert_close, format_name, poisoned_empty, relative_rms
from .peak_bytes import PeakBytes
from .schedules import SCHEDULES, schedule
from .shapes import LAYER_SHAPES, ODD_SHAPES, Shape, cropped, two_tiles
from .traffic import Traffic

__all__ = [
    "BUILDERS",
    "FOLD_LIMITS",
    "LAYER_SHAPES",
    "LIMITS",
    "ODD_SHAPES",
    "SCHEDULES",
    "Inputs",
    "Limit",
    "PeakBytes",
    "Shape",
    "Traffic",
    "assert_close",
    "calls_of",
    "cropped",
    "format_name",
    "outputs_as_floats",
    "poisoned_empty",
    "relative_rms",
    "schedule",
    "two_tiles",
]
