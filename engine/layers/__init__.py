"""Low-bit weights inside untouched modules, and the forms that run in their place on each device."""

from .install import install, low_bit_layers
from .prepare import PreparedLayer, PreparedReport, prepare
from .prepared import reason_against, reason_against_memory
from .sharing import share_down
from .storage import stored_dtype
from .weight import LowBitWeight

__all__ = [
    "LowBitWeight",
    "PreparedLayer",
    "PreparedReport",
    "install",
    "low_bit_layers",
    "prepare",
    "reason_against",
    "reason_against_memory",
    "share_down",
    "stored_dtype",
]
