"""Class accuracy of the shipped models on images they draw: python examples/digits/evaluate.py dit unet."""

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import DiTPipeline, StableDiffusionPipeline
from PIL import Image
from tqdm import trange
from transformers import ResNetForImageClassification

from data import IMAGE_SIZE, NAMES

HERE = Path(__file__).resolve().parent
Pipeline = DiTPipeline | StableDiffusionPipeline


def load(name: str, device: str) -> Pipeline:
    """The shipped pipeline in fp32, silent."""
    kind = DiTPipeline if name == "dit" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(HERE / name).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Pipeline, labels: list[int], seed: int, steps: int, guidance: float) -> torch.Tensor:
    """Images (n, 3, 32, 32) fp32 in [0, 1], image i from noise of seed + i."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(labels))]
    subject = (dict(class_labels=labels) if isinstance(pipeline, DiTPipeline) else
               dict(prompt=[f"a handwritten {NAMES[label]}" for label in labels]))
    output = pipeline(
        **subject, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np")
    return torch.from_numpy(output.images).permute(0, 3, 1, 2)


def save_grid(images: torch.Tensor, path: Path, columns: int = 20, zoom: int = 2) -> None:
    """The images (n, 3, 32, 32), n a multiple of `columns`, row by row as one PNG."""
    rows = len(images) // columns
    grid = images.view(rows, columns, 3, IMAGE_SIZE, IMAGE_SIZE).permute(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * IMAGE_SIZE, columns * IMAGE_SIZE, 3)
    picture = Image.fromarray((grid * 255).round().byte().numpy())
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=["dit", "unet"])
    parser.add_argument("--images", type=int, default=1000, help="a multiple of 20; the ten digits in turn")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--grid", type=Path, help="folder for one PNG of the first 200 images of each model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.images < 20 or arguments.images % 20:
        parser.error(f"--images needs a multiple of 20, not {arguments.images}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    classifier = ResNetForImageClassification.from_pretrained(HERE / "classifier").eval()
    for name in arguments.models:
        pipeline = load(name, arguments.device)
        labels = [index % 10 for index in range(arguments.images)]
        parts, start = [], time.monotonic()
        for first in trange(0, arguments.images, arguments.batch, desc=name):
            some = labels[first:first + arguments.batch]
            parts.append(draw(pipeline, some, first, arguments.steps, arguments.guidance))
        seconds = time.monotonic() - start
        images = torch.cat(parts)
        with torch.no_grad():
            logits = torch.cat([classifier(some * 2 - 1).logits for some in images.split(250)])
        right = logits.argmax(dim=1) == torch.tensor(labels)
        print(json.dumps({
            "model": name, "images": arguments.images, "steps": arguments.steps, "guidance": arguments.guidance,
            "accuracy": round(right.float().mean().item(), 4),
            "accuracy_per_digit": [round(right[digit::10].float().mean().item(), 3) for digit in range(10)],
            "seconds_per_image": round(seconds / arguments.images, 4)}), flush=True)
        if arguments.grid:
            arguments.grid.mkdir(parents=True, exist_ok=True)
            save_grid(images[:200], arguments.grid / f"{name}.png")


if __name__ == "__main__":
    main()
