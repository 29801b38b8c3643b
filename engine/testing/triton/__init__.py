"""Triton kernels compiled for GPUs that are not here, and what their machine code shows."""

from .calls import empty_calls, one_of_each_kind
from .check import Compiled, compile_calls
from .gates import failures
from .target import CAPABILITIES, compiling_for

__all__ = ["CAPABILITIES", "Compiled", "compile_calls", "compiling_for", "empty_calls", "failures", "one_of_each_kind"]
