"""Scikit-learn's bundled handwritten digits (1,797 of 8x8) as smooth 32x32 RGB images; nothing is downloaded."""

import math

import torch
import torch.nn.functional as F

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
EDGE_GAIN = 1.6  # the 8x8 values count the ink of a sharp bitmap, so a steeper edge is nearer to what was written
EDGE_CENTRE = 0.45


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits: ink (1797, 1, 8, 8) fp32 in [0, 1] and labels (1797,) int64."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    ink = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    return ink, torch.from_numpy(digits.target).long()


def held_out(count: int, every: int = 5) -> torch.Tensor:
    """(count,) bool, True for the fifth that no classifier step sees."""
    return torch.arange(count) % every == every - 1


def enlarge(ink: torch.Tensor, affine: torch.Tensor | None = None) -> torch.Tensor:
    """Ink (n, 1, 8, 8) to images (n, 3, 32, 32) fp32 in [-1, 1], bicubic, moved by `affine` (n, 2, 3) where given."""
    if affine is None:
        affine = torch.eye(2, 3, device=ink.device).expand(len(ink), 2, 3)
    grid = F.affine_grid(affine, [len(ink), 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    large = F.grid_sample(ink, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    large = ((large - EDGE_CENTRE) * EDGE_GAIN + EDGE_CENTRE).clamp(0, 1)
    return (large * 2 - 1).expand(-1, 3, -1, -1).contiguous()


def augment(ink: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (n, 3, 32, 32) as `enlarge` gives them, each shifted, turned, scaled and inked a little differently.

    Shift up to half a pixel of the 8x8 grid, turn up to 7 degrees, scale 0.92 to 1.08, contrast 0.9 to 1.1.
    """
    count = len(ink)
    uniform = torch.rand(5, count, generator=generator, device=generator.device).to(ink.device) * 2 - 1
    angle = uniform[0] * math.radians(7)
    scale = 1 + 0.08 * uniform[1]
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    affine = torch.stack([cosine, -sine, uniform[2] * 0.125, sine, cosine, uniform[3] * 0.125], dim=1).view(count, 2, 3)
    return enlarge(ink * (1 + 0.1 * uniform[4]).view(-1, 1, 1, 1), affine)
