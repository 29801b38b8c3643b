"""Every op on the CUDA kernels; importing this fails where they were not built."""

from ... import _cuda as kernels
from .register import implementations

globals().update(implementations(kernels))
