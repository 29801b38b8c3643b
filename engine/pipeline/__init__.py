"""The drop-in object: `accelerate(pipe, ...)` returns the same pipeline, 4-bit and cached."""

from .accelerate import accelerate, from_pretrained

__all__ = ["accelerate", "from_pretrained"]
