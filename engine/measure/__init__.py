"""Measuring: time, memory, closeness of images, and how sure one may be of a difference."""

from .fid import features, frechet_distance
from .fidelity import psnr, ssim
from .intervals import Interval, paired_difference, paired_ratio
from .memory import PeakMemory, module_bytes
from .noise_floor import noise_floor
from .timing import interleave, load_guard

__all__ = [
    "Interval",
    "PeakMemory",
    "features",
    "frechet_distance",
    "interleave",
    "load_guard",
    "module_bytes",
    "noise_floor",
    "paired_difference",
    "paired_ratio",
    "psnr",
    "ssim",
]
