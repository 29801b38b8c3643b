"""What the machine code of CUDA kernels shows without a GPU: opcodes, registers, local memory, instructions per loop."""

from .check import Verdict, architectures, check
from .gates import GATES, Gate
from .report import Report, SteadyLoop
from .tools import PACKAGES, ToolMissing, tool

__all__ = ["GATES", "PACKAGES", "Gate", "Report", "SteadyLoop", "ToolMissing", "Verdict", "architectures", "check", "tool"]
