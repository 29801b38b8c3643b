"""The augmented digits as latents, encoded once and cached, because every later step would encode them again."""

import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from data import augment, load_digits

ROUNDS = 24


@torch.no_grad()
def latent_scale(vae: AutoencoderKL) -> float:
    """The factor that gives the latents of one augmented round unit standard deviation."""
    ink, _ = load_digits()
    return 1.0 / encode(vae, augment(ink, torch.Generator().manual_seed(1))).std().item()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Posterior means (n, 4, 8, 8) of images (n, 3, 32, 32), before the scaling factor."""
    device = next(vae.parameters()).device
    return torch.cat([vae.encode(some.to(device)).latent_dist.mode().cpu() for some in images.split(256)])


def cached_latents(cache: Path, vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled latents (24 * 1797, 4, 8, 8) fp32 and labels; `cache` is made where it is missing."""
    if not cache.is_file():
        ink, labels = load_digits()
        generator = torch.Generator().manual_seed(2)
        rounds = [encode(vae, augment(ink, generator)) for _ in tqdm(range(ROUNDS), desc="latents")]
        partial = cache.with_suffix(f".{os.getpid()}.tmp")  # both denoisers may start at once
        save_file({"latents": torch.cat(rounds).half().contiguous(), "labels": labels.repeat(ROUNDS)}, partial)
        partial.replace(cache)
    stored = load_file(cache)
    return stored["latents"].float() * vae.config.scaling_factor, stored["labels"]
