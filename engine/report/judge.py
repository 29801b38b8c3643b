"""Judge images with a trained classifier: class accuracy, and the feature space Frechet distances are measured in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

REFERENCE = "reference_features.safetensors"


@dataclass(frozen=True)
class Judgement:
    """predicted: int64 [B]; features: float32 [B, D]."""

    predicted: Tensor
    features: Tensor


class Judge:
    """An image classifier folder (transformers, safetensors) and the features of the real images beside it."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForImageClassification

        if not (folder / "config.json").is_file():
            raise ValueError(f"classifier needs a folder with config.json; {folder} has none")
        self.model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        self.real_features = load_file(folder / REFERENCE)["features"].float() if (folder / REFERENCE).is_file() else None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Judgement:
        """images: float [B, 3, H, W] in 0..1."""
        output = self.model(images.float() * 2 - 1, output_hidden_states=True)
        return Judgement(output.logits.argmax(1), output.hidden_states[-1].mean((2, 3)))
