"""What each network learns: its batches, its loss, and where its averaged weights go."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from data import augment, held_out, load_digits
from export import part, shipped, swap_in, write_classifier, write_dit, write_unet
from latents import cached_latents, latent_scale
from models import (NULL_LABEL, build_classifier, build_dit, build_scheduler, build_text_encoder, build_unet, build_vae,
                    min_snr_weight)
from prompts import END, START, TEMPLATES, build_tokenizer, corpus
from trainer import Budget, train

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
DROP = 0.12  # share of batches' conditions replaced by the empty one, for classifier-free guidance (Ho and Salimans 2022)
KL_WEIGHT = 1e-3


def pick(count: int, batch: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(count, (batch,), generator=generator)


def train_classifier(budget: Budget, batch: int, device: str) -> bool:
    """ResNet on four fifths of the digits, augmented."""
    ink, labels = load_digits()
    seen = ~held_out(len(ink))
    ink, labels = ink[seen], labels[seen]
    module = build_classifier().to(device)

    def loss(generator: torch.Generator) -> torch.Tensor:
        index = pick(len(ink), batch, generator)
        logits = module(augment(ink[index], generator).to(device)).logits
        return F.cross_entropy(logits, labels[index].to(device), label_smoothing=0.05)

    def export(tensors: dict[str, torch.Tensor], facts: dict) -> None:
        classifier = shipped(build_classifier(), tensors)
        swap_in(HERE / "classifier", lambda folder: write_classifier(folder, classifier))

    return train("classifier", module, loss, budget, WORK, export)


def train_vae(budget: Budget, batch: int, device: str) -> bool:
    """Autoencoder with L1 and L2 reconstruction and a small KL term; its latents are then scaled to unit deviation."""
    ink, _ = load_digits()
    module = build_vae().to(device)

    def loss(generator: torch.Generator) -> torch.Tensor:
        images = augment(ink[pick(len(ink), batch, generator)], generator).to(device)
        posterior = module.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        restored = module.decode(posterior.mean + posterior.std * noise).sample
        divergence = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()
        return F.l1_loss(restored, images) + F.mse_loss(restored, images) + KL_WEIGHT * divergence

    def export(tensors: dict[str, torch.Tensor], facts: dict) -> None:
        vae = build_vae()
        vae.load_state_dict({name: tensor.cpu() for name, tensor in tensors.items()})
        vae.register_to_config(scaling_factor=round(latent_scale(vae.eval()), 5))
        (WORK / "latents.safetensors").unlink(missing_ok=True)
        swap_in(WORK / "vae_folder", vae.half().save_pretrained)

    return train("vae", module, loss, budget, WORK, export)


def trained_vae(dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """The VAE of both pipelines."""
    if not (WORK / "vae_folder").is_dir():
        raise SystemExit("the latents need a trained VAE, but there is none yet: run `train.py vae` first")
    vae = AutoencoderKL.from_pretrained(WORK / "vae_folder", torch_dtype=dtype).eval().requires_grad_(False)
    vae.register_to_config(_name_or_path="")  # else the folder of whoever trained it ships with the pipeline
    return vae


class Denoising:
    """Noised latents and the v-prediction loss, the same for both denoisers."""

    def __init__(self, batch: int, device: str) -> None:
        self.latents, self.labels = cached_latents(WORK / "latents.safetensors", trained_vae())
        self.scheduler, self.batch, self.device = build_scheduler(), batch, device

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean latents, noise, timestep, labels, and which conditions are dropped."""
        index = pick(len(self.latents), self.batch, generator)
        clean = self.latents[index]
        noise = torch.randn(clean.shape, generator=generator)
        timestep = torch.randint(1000, (self.batch,), generator=generator)
        dropped = torch.rand(self.batch, generator=generator) < DROP
        return tuple(tensor.to(self.device) for tensor in (clean, noise, timestep, self.labels[index], dropped))

    def loss(self, predicted: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        target = self.scheduler.get_velocity(clean, noise, timestep)
        error = (predicted.float() - target).pow(2).mean(dim=(1, 2, 3))
        weight = min_snr_weight(self.scheduler, timestep)
        return (weight * error).mean() / weight.mean()


def train_dit(budget: Budget, batch: int, device: str) -> bool:
    """Class-conditional transformer."""
    task = Denoising(batch, device)
    module = build_dit().to(device)

    def loss(generator: torch.Generator) -> torch.Tensor:
        clean, noise, timestep, labels, dropped = task.draw(generator)
        noisy = task.scheduler.add_noise(clean, noise, timestep)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = module(noisy, timestep, labels.masked_fill(dropped, NULL_LABEL)).sample
        return task.loss(predicted, clean, noise, timestep)

    def export(tensors: dict[str, torch.Tensor], facts: dict) -> None:
        transformer = shipped(build_dit(), tensors)
        swap_in(HERE / "dit", lambda folder: write_dit(folder, transformer, trained_vae(torch.float16)))

    return train("dit", module, loss, budget, WORK, export)


def train_unet(budget: Budget, batch: int, device: str) -> bool:
    """Text-conditional UNet and its text encoder, together."""
    task = Denoising(batch, device)
    tokenizer = build_tokenizer()
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    prompts = tokenizer(corpus() + [""], padding="max_length", return_tensors="pt").input_ids.to(device)
    module = nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(len(tokenizer), start, end)}).to(device)

    def loss(generator: torch.Generator) -> torch.Tensor:
        clean, noise, timestep, labels, dropped = task.draw(generator)
        noisy = task.scheduler.add_noise(clean, noise, timestep)
        prompt = labels * len(TEMPLATES) + pick(len(TEMPLATES), batch, generator).to(device)
        prompt = prompt.masked_fill(dropped, len(prompts) - 1)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            encoded = module["text_encoder"](prompts).last_hidden_state[prompt]
            predicted = module["unet"](noisy, timestep, encoded).sample
        return task.loss(predicted, clean, noise, timestep)

    def export(tensors: dict[str, torch.Tensor], facts: dict) -> None:
        unet = shipped(build_unet(), part(tensors, "unet"))
        text_encoder = shipped(build_text_encoder(len(tokenizer), start, end), part(tensors, "text_encoder"))
        swap_in(HERE / "unet", lambda folder: write_unet(folder, unet, text_encoder, tokenizer, trained_vae(torch.float16)))

    return train("unet", module, loss, budget, WORK, export)
