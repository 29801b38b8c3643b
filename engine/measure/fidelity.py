"""How close two batches of images are, one number per image: PSNR and SSIM for values in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 1.5
LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01**2, 0.03**2


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, infinite for identical images: float [B, C, H, W] twice -> float64 [B]."""
    images, reference = _same_shape(images, reference)
    return -10 * (images - reference).square().flatten(1).mean(1).log10()


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity, 1 for identical images: float [B, C, H, W] twice -> float64 [B].

    Gaussian window of width 1.5: 11x11, or 7x7 when the shorter side is below 64 pixels, where it lies inside the image.
    Raises ValueError when the image is smaller than the window. Source: Wang et al. 2004, IEEE TIP 13(4), eq. 13.
    """
    images, reference = _same_shape(images, reference)
    size = 7 if min(images.shape[-2:]) < 64 else 11
    if min(images.shape[-2:]) < size:
        raise ValueError(f"images: at least {size}x{size} pixels are needed, got {tuple(images.shape[-2:])}")

    mean_x, mean_y = _blur(images, size), _blur(reference, size)
    var_x = _blur(images * images, size) - mean_x**2
    var_y = _blur(reference * reference, size) - mean_y**2
    cov = _blur(images * reference, size) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + LUMINANCE_CONSTANT) / (mean_x**2 + mean_y**2 + LUMINANCE_CONSTANT)
    structure = (2 * cov + CONTRAST_CONSTANT) / (var_x + var_y + CONTRAST_CONSTANT)
    return (luminance * structure).flatten(1).mean(1)


def _same_shape(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != reference.shape or images.ndim != 4:
        raise ValueError(f"images: two batches [B, C, H, W] are needed, got {tuple(images.shape)} and {tuple(reference.shape)}")
    return images.double(), reference.double()


def _blur(x: Tensor, size: int) -> Tensor:
    """Separable Gaussian, no padding: [B, C, H, W] -> [B, C, H-size+1, W-size+1]."""
    offset = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    window = torch.exp(-offset.square() / (2 * SIGMA**2))
    window = window / window.sum()
    planes = x.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(F.conv2d(planes, window.view(1, 1, size, 1)), window.view(1, 1, 1, size))
    return planes.squeeze(1).unflatten(0, x.shape[:2])
