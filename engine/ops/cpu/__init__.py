"""The "cpu" backend: which calls its C++ kernels take, and the fused linear layer on a prepacked weight."""

from .backend import DTYPES, register
from .packed_convolution import convolve
from .packed_weight import PackedWeight, best_isa, isas, pack

__all__ = ["DTYPES", "PackedWeight", "best_isa", "convolve", "isas", "pack", "register"]
