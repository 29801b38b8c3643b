"""Trained weights as plain 16-bit folders that `from_pretrained` loads, each replaced whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiTPipeline, StableDiffusionPipeline
from torch import nn
from transformers import CLIPTokenizer

from data import NAMES
from models import build_sampler


def swap_in(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a sibling of `folder`, then put it in the place of `folder`, so that readers see old or new."""
    fresh, stale = folder.parent / f".swap-new-{folder.name}", folder.parent / f".swap-old-{folder.name}"
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write(fresh)
    if folder.exists():
        os.replace(folder, stale)
    os.replace(fresh, folder)
    shutil.rmtree(stale, ignore_errors=True)


def shipped(module: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """`module` on the CPU in fp16 evaluation mode, holding `tensors`."""
    module.load_state_dict({name: tensor.cpu() for name, tensor in tensors.items()})
    return module.half().eval().requires_grad_(False)


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries of `tensors` under `prefix.`, without it."""
    return {name[len(prefix) + 1:]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def edit_json(file: Path, changes: dict) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes, indent=2) + "\n")


def load_in_float32(config: Path) -> None:
    """Let transformers expand the 16-bit weights on loading, as diffusers does; else the two halves would not fit."""
    edit_json(config, {"dtype": "float32"})


def write_classifier(folder: Path, classifier: nn.Module) -> None:
    """A ResNetForImageClassification folder."""
    classifier.save_pretrained(folder)
    load_in_float32(folder / "config.json")


def write_dit(folder: Path, transformer: nn.Module, vae: AutoencoderKL) -> None:
    """A DiTPipeline folder whose labels are the names of the digits."""
    pipeline = DiTPipeline(transformer=transformer, vae=vae, scheduler=build_sampler())
    pipeline.save_pretrained(folder)
    # DiTPipeline reads id2label from its index but does not write it there.
    edit_json(folder / "model_index.json", {"id2label": {str(label): name for label, name in enumerate(NAMES)}})


def write_unet(folder: Path, unet: nn.Module, text_encoder: nn.Module, tokenizer: CLIPTokenizer, vae: AutoencoderKL) -> None:
    """A StableDiffusionPipeline folder without a safety checker."""
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_sampler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(folder)
    load_in_float32(folder / "text_encoder" / "config.json")
