"""The ops on Triton kernels: which calls they take. The kernels themselves are in triton_kernels/."""

from .register import register

__all__ = ["register"]
