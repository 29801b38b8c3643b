"""The "cpu" backend: which calls its C++ kernels take, and the fused linear layer on a prepacked weight."""

from .backend import DTYPES, register
from .packed_weight import PackedWeight, isas, pack

__all__ = ["DTYPES", "PackedWeight", "isas", "pack", "register"]
