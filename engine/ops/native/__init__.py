"""Ops on kernels compiled from csrc/cuda: "cuda" on a GPU, and "simt", the same sources run by a host shim for tests."""

from .register import register

__all__ = ["register"]
