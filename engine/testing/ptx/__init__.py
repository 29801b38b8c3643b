"""An interpreter of PTX: runs what nvcc made of a kernel on a CPU, lane by lane in numpy, and checks every access."""

from .faults import PtxFault
from .interpreter import launch
from .memory import Memory
from .parser import parse
from .syntax import Kernel, Module, UnsupportedPtx

__all__ = ["Kernel", "Memory", "Module", "PtxFault", "UnsupportedPtx", "launch", "parse"]
