"""Every op on the CUDA kernels' own source, run on the CPU by the host shim; importing this fails where it was not built."""

from ... import _simt as kernels
from .register import implementations

globals().update(implementations(kernels))
