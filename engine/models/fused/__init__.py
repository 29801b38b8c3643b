"""Transformer blocks on fused ops, put in place of their forward for one model at a time."""

from .forward import FusedForward
from .install import FusedBlocks, fuse_blocks

__all__ = ["FusedBlocks", "FusedForward", "fuse_blocks"]
