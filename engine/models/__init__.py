"""What is known about denoisers: their repeated blocks, their layers' roles, their families' facts."""

from .blocks import BlockStack, find_stacks
from .denoiser import find_denoisers

__all__ = ["BlockStack", "find_denoisers", "find_stacks"]
